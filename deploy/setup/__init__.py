"""Makes what a command needs before anything is installed: environments, services' programs, secrets.

Standard library only: `./roundhouse` runs this package by its path with a bare Python. It is imported as
`roundhouse.deploy.setup` too, by the installed command.
"""

from .command import main
from .steps import ensure

__all__ = ["ensure", "main"]
