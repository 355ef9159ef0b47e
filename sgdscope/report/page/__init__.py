"""The HTML report and what a notebook shows."""
