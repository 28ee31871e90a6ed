"""The one kind of error a set-up ends with, and how foreign ones become it."""

import errno
import os
import pwd
import re
from contextlib import suppress
from pathlib import Path


class SetupError(Exception):
    """One line for the user: what failed, where, what to do."""


def from_os_error(error: OSError, place: Path) -> SetupError:
    """The line for a fault of the file system met at `place`."""
    where = error.filename or place
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return SetupError(f"no space left at {where}; free some, then run the same command again")
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return SetupError(
            f"cannot write {where} ({error.strerror}); put the folder where you may write, "
            "or give yourself the right to write there"
        )
    return SetupError(f"{where}: {error.strerror or error}")


def foreign(error: PermissionError) -> str:
    """The line for a file or folder that we may not touch: whose it is, and how to have another."""
    place = Path(str(error.filename)) if error.filename else None
    if place is None:
        return f"{error.strerror or error}"
    there = next((it for it in (place, *place.parents) if os.path.lexists(it)), place)
    with suppress(OSError, KeyError):
        owner = there.stat().st_uid
        if owner != os.getuid():
            whose = pwd.getpwuid(owner).pw_name
            remedy = f"run this as {whose}, or have the project in a folder of your own ('chown -R' makes it yours)"
            if place.name != ".env":
                remedy += "; ROUNDHOUSE_HOME names another place for what is kept"
            return f"{place}: {error.strerror}; {there} belongs to {whose}: {remedy}"
    return f"{place}: {error.strerror}; give yourself the right to it, or set ROUNDHOUSE_HOME to a folder of yours"


def from_pip(output: list[str], log: Path, part: str) -> SetupError:
    """The line for a pip that failed, from what it printed; everything is in `log`."""
    text = "\n".join(output)
    see = f"(all of it: {log})"
    if "No space left on device" in text or "Disk quota exceeded" in text:
        return SetupError(f"{part}: no space left on the disk; free some, then run the same command again {see}")
    if "Read-only file system" in text or "Permission denied" in text:
        return SetupError(f"{part}: a folder cannot be written {see}; give yourself the right to write there")
    if "DO NOT MATCH THE HASHES" in text:
        return SetupError(f"{part}: a package is not the one that was pinned {see}; check your package index")
    network = (
        "Failed to establish a new connection",
        "Max retries exceeded",
        "Connection refused",
        "Temporary failure in name resolution",
        "Name or service not known",
        "Network is unreachable",
        "Read timed out",
        "ConnectTimeoutError",
        "ProxyError",
        "SSLError",
    )
    if any(sign in text for sign in network):
        return SetupError(
            f"{part}: the package index cannot be reached {see}; check the network and pip's settings "
            "('pip config list'), then run the same command again"
        )
    if match := re.search(r"No matching distribution found for (\S+)", text):
        return SetupError(
            f"{part}: pip's index has no {match[1]} for this Python and platform, or cannot be reached {see}; "
            "check the network and 'pip config list'"
        )
    errors = [line for line in output if line.startswith("ERROR:")] or output or ["no output"]
    return SetupError(f"{part}: pip failed: {errors[-1].removeprefix('ERROR:').strip()} {see}")
