"""How other processes talk to residency."""
