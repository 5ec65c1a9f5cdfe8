"""Health checkers, and the scheduler that runs them."""
