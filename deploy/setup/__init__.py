"""Makes what a command needs before anything is installed: environments, services' programs, secrets.

Standard library only: `./roundhouse` runs this package by its path with a bare Python. It is imported as
`roundhouse.deploy.setup` too, by the installed command and, for what it knows of the card, by every process.
"""
