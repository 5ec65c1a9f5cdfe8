"""The pool and the table as values and functions. Pure."""
