"""What to run: configuration, staleness, command line."""
