"""What fits beside what, before anything starts: on a device that is here or one that is not."""
