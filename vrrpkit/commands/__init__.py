"""External programs, run safely: no shell, no thread, a time limit for all that they start."""
