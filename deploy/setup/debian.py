"""Programs of Debian's that the tests need and the system lacks, unpacked into a folder of ours.

apt finds and verifies them, with a folder of its own, so that nothing is installed and no account but this one is
needed.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

from .pip import Part


def available() -> bool:
    """Is there an apt to ask?"""
    return bool(shutil.which("apt-get") and shutil.which("dpkg-deb"))


def fetch(part: Part, packages: Sequence[str], folder: Path) -> bool:
    """Have `folder` hold the packages, with all they need that the system lacks, and nothing else.

    Whether that worked; what went wrong is in the part's log.
    """
    work = folder.with_name(f"{folder.name}.apt")
    for left in (folder, work):
        shutil.rmtree(left, ignore_errors=True)
    if not (_download(part, packages, work) and _unpack(part, work, folder)):
        return False
    shutil.rmtree(work, ignore_errors=True)
    return True


def _download(part: Part, packages: Sequence[str], work: Path) -> bool:
    """Have apt download to `work` what an installation of the packages would."""
    for name in ("lists", "archives"):
        (work / name / "partial").mkdir(parents=True)
    options = {
        "Dir::State::Lists": work / "lists",
        "Dir::Cache": work,
        "Dir::Cache::Archives": work / "archives",
        "Debug::NoLocking": "true",
        "APT::Sandbox::User": "",  # root's downloads would belong to an account that cannot enter here
        "Acquire::Languages": "none",
    }
    apt = ["apt-get", "--quiet", "--yes", *(f"--option={name}={value}" for name, value in options.items())]
    install = ["--no-install-recommends", "--download-only", "install", *packages]
    return all(part.run([*apt, *words], check=False, extra={"LC_ALL": "C"}) == 0 for words in (["update"], install))


def _unpack(part: Part, work: Path, folder: Path) -> bool:
    """Unpack every archive, without running any of their scripts."""
    part.show("unpacking")
    folder.mkdir()
    archives = sorted((work / "archives").glob("*.deb"))
    return all(part.run(["dpkg-deb", "--extract", str(it), str(folder)], check=False) == 0 for it in archives)
