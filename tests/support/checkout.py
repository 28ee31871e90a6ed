"""A small checkout with the real bootstrap, a command that only prints, and locks of one hand-made wheel."""

from __future__ import annotations

import base64
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

from roundhouse.deploy.setup.engine import TORCH

ROOT = Path(__file__).resolve().parents[2]
# What a developer's shell or the test run itself may hold, and a fresh user's does not.
UNSET = ("PYTHONPATH", "VIRTUAL_ENV", "PYTHONDONTWRITEBYTECODE")


@dataclass
class Checkout:
    """A folder in which `./roundhouse COMMAND` can be run, offline and within seconds."""

    root: Path
    wheels: Path
    environment: dict[str, str] = field(default_factory=dict)

    def start(self, *argv: str, **environment: str) -> subprocess.Popen[str]:
        """Start `./roundhouse ARGV` in a process group of its own."""
        return subprocess.Popen(
            [self.root / "roundhouse", *argv],
            env={**self.environment, **environment},
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *argv: str, **environment: str) -> tuple[int, str, str]:
        """Run `./roundhouse ARGV`: exit code, output, errors."""
        process = self.start(*argv, **environment)
        out, err = process.communicate(timeout=100)
        return process.returncode, out, err


def make_checkout(folder: Path) -> Checkout:
    """Lay the checkout out under `folder`."""
    root, wheels = folder / "checkout", folder / "wheels"
    wheels.mkdir(parents=True)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "deploy", root / "deploy", ignore=ignored)
    shutil.copy(ROOT / "roundhouse", root / "roundhouse")
    shutil.copy(ROOT / "litellm_config.yaml", root / "litellm_config.yaml")
    command = root / "src" / "roundhouse" / "cli"
    command.mkdir(parents=True)
    for package in (command, command.parent):
        (package / "__init__.py").write_text("")
    (command / "main.py").write_text("import sys, tiny\nprint('ran', *sys.argv[1:], tiny.VALUE)\n")
    digest = hashlib.sha256(_wheel(wheels, "tiny", "1.0", "py3-none-any").read_bytes()).hexdigest()
    python = f"cp{sys.version_info[0]}{sys.version_info[1]}"
    _wheel(wheels, "torch", TORCH, f"{python}-{python}-linux_{platform.machine()}")
    for name in ("proxy.txt", "engine-cpu.txt", "engine-cuda.txt"):
        lock = root / "deploy" / "requirements" / name
        lock.write_text(f"tiny==1.0 \\\n    --hash=sha256:{digest}\n")
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in UNSET and not name.startswith(("PIP_", "ROUNDHOUSE_"))
    }
    offline = {
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(wheels),
        "PIP_CONFIG_FILE": os.devnull,
        "ROUNDHOUSE_KEYS": "off",
    }
    return Checkout(root, wheels, {**environment, **offline, "PYTHONDONTWRITEBYTECODE": "1"})


def _wheel(folder: Path, name: str, version: str, tag: str) -> Path:
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": "VALUE = 42\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: {tag}\n",
    }
    record = [f"{name},sha256={_digest(text)},{len(text)}" for name, text in files.items()]
    files[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,"]) + "\n"
    path = folder / f"{name}-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
