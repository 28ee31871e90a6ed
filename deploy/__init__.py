"""Set-up and services: environments, secrets, Redis."""
