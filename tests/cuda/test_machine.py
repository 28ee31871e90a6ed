"""What a machine with a driver and pip's packages, and nothing else of NVIDIA's, can do: sampler, Triton, ptxas."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from roundhouse.deploy.setup.fitness import BUILT_FOR
from tests.cuda.pretend import Machine
from tests.cuda.shipped import Shipped, engines

SWITCH = "VLLM_USE_FLASHINFER_SAMPLER"


@pytest.fixture(scope="module")
def environment(pretend: Machine, hub: Path) -> Mapping[str, str]:
    """What the launcher gives an engine."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in pretend.environment().items():
            patch.setenv(name, value)
        first: Shipped = next(engines())
        return first.spec(hub).env


def test_top_k_and_top_p_are_not_left_to_flashinfer_which_would_want_nvcc(
    pretend: Machine, environment: Mapping[str, str]
) -> None:
    assert pretend.ask("sampler", None, environment) == {"flashinfer": False, "imported": False}


def test_without_our_switch_they_would_be(pretend: Machine, environment: Mapping[str, str]) -> None:
    """If not, vLLM decides otherwise than when the switch was chosen: look whether it is needed still."""
    bare = {name: value for name, value in environment.items() if name != SWITCH}
    bare["FLASHINFER_CUDA_ARCH_LIST"] = "12.0"  # else FlashInfer asks CUDA, which has no card
    assert pretend.ask("sampler", None, bare)["flashinfer"]


def test_triton_compiles_for_each_kind_of_card_without_a_toolkit(
    pretend: Machine, environment: Mapping[str, str], tmp_path: Path
) -> None:
    env = {**environment, "TRITON_CACHE_DIR": str(tmp_path)}
    answer = pretend.ask("compiler", {"capabilities": [89, 90, 120]}, env)
    assert all(size > 0 for size in answer["cubins"].values())
    assert answer["driver"] is None
    assert set(answer["archs"]) == {f"sm_{major}{minor}" for major, minor in BUILT_FOR}


def test_without_a_compiler_triton_says_what_the_set_up_asks_for(
    pretend: Machine, environment: Mapping[str, str], tmp_path: Path
) -> None:
    (tmp_path / "bin").mkdir()
    env = {name: value for name, value in environment.items() if name != "CC"}
    env |= {"PATH": str(tmp_path / "bin"), "TRITON_CACHE_DIR": str(tmp_path / "cache")}
    assert "Failed to find C compiler" in pretend.ask("compiler", {"capabilities": []}, env)["driver"]
