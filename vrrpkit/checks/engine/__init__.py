"""Runs the checks: one scheduler for all of an event loop."""
