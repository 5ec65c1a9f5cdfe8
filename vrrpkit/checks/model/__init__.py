"""From attempts to verdicts, as values and functions. Pure."""
