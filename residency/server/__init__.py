"""The process: one event loop, which carries out what the machine orders."""
