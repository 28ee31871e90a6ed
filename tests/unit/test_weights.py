"""Where weights come from: the hub or tiny models, chosen once and kept."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from roundhouse.config import paths
from roundhouse.config.load import load_settings
from roundhouse.config.schema import Settings
from roundhouse.launchers.vllm import weights
from roundhouse.launchers.vllm.download import DownloadError, Downloads, _explain, is_folder, unwanted
from roundhouse.launchers.vllm.weights import Source, WeightsError, prepare, recorded, tiny_folder


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("ROUNDHOUSE_HOME", str(tmp_path))
    return load_settings(paths.default_config_file("cpu"))


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was made or fetched, instead of doing it."""
    done: list[str] = []

    def run(argv: list[str], report: object) -> None:
        done.append("tiny")
        for kind in ("chat", "code", "vision", "embedding"):
            tiny_folder(kind).mkdir(parents=True, exist_ok=True)

    monkeypatch.setattr(weights, "_run", run)
    monkeypatch.setattr(Downloads, "fetch", lambda self, model, report: done.append(model))
    return done


def quiet(line: str) -> None:
    """Nobody reads."""


def test_without_a_hub_tiny_models_stand_in_and_the_user_is_told(settings: Settings, made: list[str]) -> None:
    choice = prepare(settings, "auto", quiet, lambda: False)
    assert (choice.source, made) == (Source.TINY, ["tiny"])
    assert choice.notice is not None
    assert "noise" in choice.notice
    assert recorded() is Source.TINY


def test_with_a_hub_the_real_models_are_fetched(settings: Settings, made: list[str]) -> None:
    choice = prepare(settings, "auto", quiet, lambda: True)
    assert (choice.source, choice.notice) == (Source.HUB, None)
    assert made == [entry.launcher.model for entry in settings.models.values() if entry.launcher.kind == "vllm"]
    assert recorded() is Source.HUB


def test_the_choice_stays_when_a_network_comes(settings: Settings, made: list[str]) -> None:
    prepare(settings, "auto", quiet, lambda: False)
    assert prepare(settings, "auto", quiet, lambda: True).source is Source.TINY


def test_a_model_without_stand_in_cannot_be_made_tiny(settings: Settings, made: list[str]) -> None:
    entry = settings.models["qwen-0.5b"]
    plain = entry.model_copy(update={"launcher": entry.launcher.model_copy(update={"stand_in": None})})
    without = settings.model_copy(update={"models": {"qwen-0.5b": plain}})
    with pytest.raises(WeightsError, match=r"qwen-0\.5b: set model_info\.launcher\.stand_in"):
        prepare(without, "tiny", quiet)
    assert made == []


def test_an_engine_environment_that_is_missing_is_said(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROUNDHOUSE_ENGINE_PYTHON", "/nowhere/python")
    with pytest.raises(WeightsError, match="/nowhere/python"):
        prepare(settings, "tiny", quiet)
    assert recorded() is None


def test_a_download_that_failed_is_explained_with_what_to_do(tmp_path: Path) -> None:
    error = _explain("a/b", httpx.ConnectError("no route"))
    assert "cannot download model a/b" in str(error)
    assert "run it again to continue" in str(error)
    with pytest.raises(DownloadError, match="correct the path"):
        Downloads(tmp_path / "d.json").fetch("/nowhere", quiet)


def test_what_vllm_does_not_read_is_not_downloaded() -> None:
    assert "*.bin" in unwanted(["model.safetensors", "pytorch_model.bin"])
    assert "*.bin" not in unwanted(["pytorch_model.bin"])
    assert is_folder("./weights")
    assert not is_folder("Qwen/Qwen2.5-0.5B-Instruct")
