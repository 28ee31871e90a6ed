"""Where the gateway of this home listens. The kernel is asked, so that no key goes to a program that is not ours."""

from __future__ import annotations

import os

from roundhouse.deploy.services import pids


def gateway() -> tuple[str, int] | None:
    """Host and port at which our gateway takes connections; None where it does not run."""
    process = pids.recorded("proxy")
    found = [] if process is None else pids.listening(process)
    wished = os.environ.get("ROUNDHOUSE_HOST")
    return next((it for it in found if it[0] == wished), found[0] if found else None)


def follow() -> bool:
    """Have the settings of this process name the address at which our gateway listens; False where it does not run.

    The shell of ``up`` may have had another port than the shell of the command after it.
    """
    found = gateway()
    if found is not None:
        os.environ["ROUNDHOUSE_HOST"], os.environ["ROUNDHOUSE_PORT"] = found[0], str(found[1])
    return found is not None
