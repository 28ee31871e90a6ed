"""How much `up` will download for a configuration, before there is a YAML parser."""

from __future__ import annotations

from pathlib import Path

import pytest

from roundhouse.config import paths
from roundhouse.config.load import load_settings
from roundhouse.config.schema import VllmLauncher
from roundhouse.deploy.setup import choice, hub
from roundhouse.footprint import estimate

CODER = "Qwen/Qwen2.5-Coder-7B-Instruct-AWQ"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A YAML with one model."""
    path = tmp_path / "one.yaml"
    path.write_text(f"model_list:\n  - litellm_params:\n      model: hosted_vllm/x\n        model: {CODER}\n")
    return path


@pytest.mark.parametrize("profile", choice.FOR_A_CARD)
def test_every_model_that_a_profile_downloads_is_known(profile: paths.Profile) -> None:
    path = paths.default_config_file(profile)
    launchers = [it.launcher for it in load_settings(path).models.values()]
    assert hub.models(path) == [it.model for it in launchers if isinstance(it, VllmLauncher)]


@pytest.mark.parametrize("model", hub.SIZES)
def test_sizes_are_those_of_the_footprint(model: str) -> None:
    assert hub.SIZES[model] == pytest.approx(estimate.of(model, [], None).weights, rel=0.001)


def test_what_is_here_is_not_downloaded_again(config: Path, tmp_path: Path) -> None:
    blobs = tmp_path / "hub" / "models--Qwen--Qwen2.5-Coder-7B-Instruct-AWQ" / "blobs"
    blobs.mkdir(parents=True)
    assert hub.missing(config, tmp_path / "hub") == hub.SIZES[CODER]
    with (blobs / "half").open("wb") as file:
        file.truncate(2_000_000_000)  # holes take no disk
    (blobs.parent / "snapshot").symlink_to(blobs / "half")
    assert hub.missing(config, tmp_path / "hub") == hub.SIZES[CODER] - 2_000_000_000
    with (blobs / "rest").open("wb") as file:
        file.truncate(hub.SIZES[CODER] - 2_001_000_000)
    assert hub.missing(config, tmp_path / "hub") == 0


def test_a_configuration_that_is_not_there_needs_nothing(tmp_path: Path) -> None:
    assert hub.total(tmp_path / "missing.yaml") == 0


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, Path.home() / ".cache/huggingface/hub"),
        ({"XDG_CACHE_HOME": "/x"}, Path("/x/huggingface/hub")),
        ({"HF_HOME": "/h", "XDG_CACHE_HOME": "/x"}, Path("/h/hub")),
        ({"HUGGINGFACE_HUB_CACHE": "/old", "HF_HOME": "/h"}, Path("/old")),
        ({"HF_HUB_CACHE": "/new", "HUGGINGFACE_HUB_CACHE": "/old"}, Path("/new")),
    ],
)
def test_the_cache_is_found_as_the_hub_finds_it(variables: dict[str, str], expected: Path) -> None:
    assert hub.cache(lambda name: variables.get(name, "")) == expected


def test_tiny_models_are_remembered(tmp_path: Path) -> None:
    assert not hub.tiny_was_chosen(tmp_path)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "choice").write_text("tiny\n")
    assert hub.tiny_was_chosen(tmp_path)
