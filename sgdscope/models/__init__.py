"""Networks as plain functions on parameter trees."""
