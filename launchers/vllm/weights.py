"""Where the weights of the vLLM models come from: the model hub, or tiny models made on the spot.

The choice is recorded, and stays: the answers of a model must not change because a network came or went.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Literal

from roundhouse.config import proxies
from roundhouse.config.paths import engine_python, home
from roundhouse.config.schema import Settings, VllmLauncher
from roundhouse.launchers.base import LaunchError
from roundhouse.launchers.process.environment import expand
from roundhouse.launchers.vllm.download import DownloadError, Downloads, Report, hub_reachable, is_folder

TINY_SCRIPT = Path(__file__).with_name("tiny_models.py")
NOISE = "the models are tiny stand-ins with random weights: their text is noise"


class Source(StrEnum):
    """Where weights come from."""

    HUB = "hub"
    TINY = "tiny"


@dataclass(frozen=True)
class Choice:
    """What was prepared; ``notice`` is a line that the user must see, if there is one."""

    source: Source
    notice: str | None = None


class WeightsError(Exception):
    """The weights cannot be had. The text is for the user."""


def models_dir() -> Path:
    """``<home>/models``: the recorded choice, the record of downloads, the tiny models."""
    return home() / "models"


def tiny_folder(stand_in: str) -> Path:
    """Where the tiny model that stands in for models of the kind ``stand_in`` lies."""
    return models_dir() / "tiny" / stand_in


def local_folder(model: str) -> Path | None:
    """Where the files of ``model`` (a folder, or a name on the hub) are on this machine, if they are here."""
    return Path(model) if is_folder(model) else _downloads().folder(model)


def name_of(model: str, launcher: VllmLauncher) -> str:
    """What vLLM is told to load for ``model``: a folder, or a name on the hub that the cache has.

    Raises:
        LaunchError: the folder is not there, or the name needs a variable that is not set.
    """
    source = os.environ.get("ROUNDHOUSE_MODELS") or recorded()
    if source == Source.TINY and launcher.stand_in is not None:
        return _with_weights(model, tiny_folder(launcher.stand_in), "make it with 'roundhouse up --models tiny'")
    text = os.path.expanduser(expand(launcher.model, model, launcher.port))
    if text.startswith((".", "/")):
        return _with_weights(model, Path(text).absolute(), "correct launcher.model")
    return text


def _with_weights(model: str, folder: Path, remedy: str) -> str:
    if not (folder / "config.json").is_file():
        raise LaunchError(model, f"model {model!r}: no weights in {folder}; {remedy}")
    return str(folder)


def recorded() -> Source | None:
    """The source that was chosen last, if any."""
    try:
        return Source((models_dir() / "choice").read_text(encoding="utf-8").strip())
    except (OSError, ValueError):
        return None


def prepare(
    settings: Settings,
    choice: Literal["auto", "hub", "tiny"],
    report: Report,
    reachable: Callable[[], bool] = hub_reachable,
) -> Choice:
    """Make the weights of every vLLM model of ``settings`` be there, and record where they come from.

    ``auto`` keeps what an earlier call has completed; else it takes the hub if it is ``reachable``, else
    tiny models. ``report`` gets one line at a time. May be interrupted and called again. Does nothing, and
    records nothing, where no model is served by vLLM.

    Raises:
        WeightsError: a download failed, tiny models cannot be made, or a model has no stand-in.
    """
    models = {name: e.launcher for name, e in settings.models.items() if isinstance(e.launcher, VllmLauncher)}
    source = _decide(models, choice, reachable)
    if source is Source.TINY:
        _make_tiny(models, report)
    else:
        _download(models, report)
    if models:
        _record(source)
    if source is Source.HUB:
        return Choice(source)
    return Choice(source, NOISE + ("" if choice == "tiny" else f"; {_remedy()}"))


def _remedy() -> str:
    socks = proxies.without_library(os.environ)
    return f"{proxies.said(socks)}: the hub cannot be asked" if socks else "to have the real ones: up --models hub"


def _decide(
    models: dict[str, VllmLauncher], choice: Literal["auto", "hub", "tiny"], reachable: Callable[[], bool]
) -> Source:
    if choice != "auto":
        return Source(choice)
    downloads = _downloads()
    if recorded() is not Source.TINY and all(downloads.complete(model.model) for model in models.values()):
        return Source.HUB
    if recorded() is Source.TINY and not _missing_tiny(_stand_ins(models)):
        return Source.TINY
    return Source.HUB if reachable() else Source.TINY


def _download(models: dict[str, VllmLauncher], report: Report) -> None:
    downloads = _downloads()
    for number, (name, launcher) in enumerate(models.items(), start=1):
        try:
            downloads.fetch(launcher.model, report)
        except DownloadError as error:
            raise WeightsError(f"{name}: {error}") from error
        report(f"{name} {number}/{len(models)}")


def _make_tiny(models: dict[str, VllmLauncher], report: Report) -> None:
    homeless = [name for name, launcher in models.items() if launcher.stand_in is None]
    if homeless:
        raise WeightsError(
            f"no tiny model can stand in for {', '.join(homeless)}: set model_info.launcher.stand_in to "
            "chat, code, vision or embedding, or run with the model hub reachable (up --models hub)"
        )
    missing = _missing_tiny(_stand_ins(models))
    if missing:
        report("making tiny models")
    # Also when all are there: the script knows whether an older version of it made them.
    _run([str(engine_python()), str(TINY_SCRIPT), str(models_dir() / "tiny")], report if missing else lambda _: None)


def _run(argv: Sequence[str], report: Report) -> None:
    """Run ``argv`` to its end, its lines to ``report``; its last line becomes the error."""
    last = ""
    try:
        with subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as child:
            assert child.stdout is not None
            for line in map(str.strip, child.stdout):
                if line:
                    last = line
                    report(line)
    except OSError as error:
        raise WeightsError(
            f"cannot make tiny models: the engine environment has no {argv[0]} ({error.strerror}); "
            "./roundhouse up makes it"
        ) from error
    if child.returncode:
        raise WeightsError(f"cannot make tiny models (exit code {child.returncode}): {last}")


def _stand_ins(models: dict[str, VllmLauncher]) -> set[str]:
    return {launcher.stand_in for launcher in models.values() if launcher.stand_in is not None}


def _missing_tiny(stand_ins: set[str]) -> set[str]:
    # Made elsewhere and renamed into place: one that is there is complete.
    return {stand_in for stand_in in stand_ins if not tiny_folder(stand_in).is_dir()}


def _downloads() -> Downloads:
    return Downloads(models_dir() / "downloads.json")


def _record(source: Source) -> None:
    file = models_dir() / "choice"
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_name("choice.new")
    new.write_text(f"{source}\n", encoding="utf-8")
    os.replace(new, file)
