"""The variables that vLLM gets, by what it runs on."""

from __future__ import annotations

from pathlib import Path

import pytest

from roundhouse.config.schema import DeviceSettings
from roundhouse.config.wsl import in_wsl
from roundhouse.launchers.process.environment import engine_environment
from roundhouse.launchers.vllm.environment import variables
from tests.support.machine import LINUX, WSL, kernel

MIB = 2**20


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ROUNDHOUSE_HOME", str(tmp_path / "home"))
    for name in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"):
        monkeypatch.delenv(name, raising=False)
    kernel(monkeypatch, LINUX)
    return tmp_path / "home"


def test_on_a_card_nothing_is_compiled_that_needs_a_toolkit_and_no_thread_is_in_the_way_of_a_fork() -> None:
    env = variables(cpu=False)
    assert env["VLLM_USE_FLASHINFER_SAMPLER"] == "0"
    assert env["HUMMING_DISABLE_PARALLEL_BUILD"] == "1"
    assert env["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert env["HF_HUB_OFFLINE"] == "1"


def test_on_the_cpu_there_is_nothing_of_cuda() -> None:
    ours = variables(cpu=True)
    assert ours["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
    assert "VLLM_ENABLE_V1_MULTIPROCESSING" not in variables(cpu=False)
    assert not {name for name in ours if "CUDA" in name or "FLASHINFER" in name}
    assert variables(cpu=True, exact_pinning=True) == ours


@pytest.mark.parametrize("cpu", [True, False], ids=["cpu", "cuda"])
def test_whatever_is_compiled_is_kept_in_the_home_in_folders_that_are_there(home: Path, cpu: bool) -> None:
    folders = {name: Path(value) for name, value in variables(cpu=cpu).items() if value.startswith("/")}
    assert {"VLLM_CACHE_ROOT", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR"} <= folders.keys()
    assert ("CUDA_CACHE_PATH" in folders) is not cpu
    assert all(folder.is_dir() and home / "cache" in folder.parents for folder in folders.values())
    assert len(set(folders.values())) == len(folders)


def test_pinned_memory_is_asked_for_on_wsl2_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "VLLM_WSL2_ENABLE_PIN_MEMORY"
    assert (in_wsl(), name in variables(cpu=False)) == (False, False)
    kernel(monkeypatch, WSL)
    assert (in_wsl(), variables(cpu=False)[name], name in variables(cpu=True)) == (True, "1", False)


def test_the_model_s_own_variables_win() -> None:
    env = engine_environment("m", 8001, variables(cpu=False) | {"VLLM_USE_FLASHINFER_SAMPLER": "1"})
    assert env["VLLM_USE_FLASHINFER_SAMPLER"] == "1"


EXACT = "pinned_max_round_threshold_mb:1,pinned_max_cached_size_mb:1"


@pytest.mark.parametrize(
    ("own", "value"),
    [
        ({}, EXACT),
        ({"PYTORCH_ALLOC_CONF": "a:1"}, f"a:1,{EXACT}"),
        ({"PYTORCH_CUDA_ALLOC_CONF": "b:2"}, f"b:2,{EXACT}"),
        ({"PYTORCH_ALLOC_CONF": "a:1", "PYTORCH_CUDA_ALLOC_CONF": "b:2"}, f"a:1,{EXACT}"),
    ],
)
def test_exact_pinning_is_off_until_asked_for_and_keeps_the_user_s_settings(
    monkeypatch: pytest.MonkeyPatch, own: dict[str, str], value: str
) -> None:
    for name, text in own.items():
        monkeypatch.setenv(name, text)
    assert "PYTORCH_ALLOC_CONF" not in variables(cpu=False)
    assert variables(cpu=False, exact_pinning=True)["PYTORCH_ALLOC_CONF"] == value


def test_more_of_the_card_stays_free_where_windows_shares_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert DeviceSettings().kept_free == 512 * MIB
    kernel(monkeypatch, WSL)
    assert DeviceSettings().kept_free == 1024 * MIB
    assert DeviceSettings(reserve="0").kept_free == 0  # type: ignore[arg-type]
