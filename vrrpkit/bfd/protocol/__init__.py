"""BFD as values and functions: packets and the session's state machine. Pure."""
