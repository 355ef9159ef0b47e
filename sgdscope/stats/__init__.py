"""Intervals, tests and laws: numpy alone, and nothing of trials."""
