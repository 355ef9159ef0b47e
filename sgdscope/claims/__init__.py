"""The claims of the paper, each with the rule that decides it."""
