"""One reader per format, and the order of examples."""
