"""What a study has found so far, in a browser: a file that grows, or a page that is served on this machine alone."""
