"""What is on the devices: facts in, orders out. Pure."""
