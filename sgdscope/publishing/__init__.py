"""A study as one folder that can be uploaded as it is, and the check that its pages follow from its trials."""
