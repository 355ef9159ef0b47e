"""Charts, and the page that holds them."""
