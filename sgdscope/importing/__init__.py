"""Runs that others have made, read from what is on disk: one file for each form, and each returns a table of text."""
