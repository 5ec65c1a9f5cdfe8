"""VRRP as values and functions: packets, the election, the state machine. Pure."""
