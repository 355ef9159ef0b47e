"""Two or more studies side by side: what differs between them, and what that changes."""
