"""An engine as a group of processes, whatever it runs."""
