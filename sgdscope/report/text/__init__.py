"""Tables, verdicts and advice as text."""
