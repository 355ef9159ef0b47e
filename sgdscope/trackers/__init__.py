"""What a study has found, logged to the trackers that people use, by their own libraries."""
