"""Which trials next, and training them."""
