"""What is learned of callers, answers and estimates. Pure."""
