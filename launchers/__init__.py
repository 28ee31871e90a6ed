"""Ways to start, adopt and stop an engine process."""
