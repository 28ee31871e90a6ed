"""What the pinned vLLM for CUDA makes of every shipped engine: arguments, kernels, memory. Its own code is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from roundhouse.footprint.need import MIB
from tests.cuda import shipped
from tests.cuda.pretend import Machine
from tests.cuda.shipped import Shipped

ENGINES = {f"{it.profile}-{it.name}": it for it in shipped.engines()}
CAPABILITIES = ("8.9", "9.0", "12.0")
"""An RTX 4090's, an H200's, an RTX 5080's."""


FOUR_BITS = {"9.0": "MacheteLinearKernel"}
"""Hopper has a kernel of its own; both are in vLLM's package, compiled."""


def ask(pretend: Machine, hub: Path, capability: str, engines: list[Shipped]) -> dict[str, Any]:
    """vLLM's answers for ``engines``, by profile and name."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in pretend.environment(CAPABILITY=capability).items():
            patch.setenv(name, value)
        specs = {f"{it.profile}-{it.name}": it.spec(hub) for it in engines}
    jobs = []
    for it in engines:
        known = it.estimate()
        assert known.cache is not None
        least = known.cache.needed(known.context or 0, known.flags.kv_bits)
        name = f"{it.profile}-{it.name}"
        jobs.append({"name": name, "argv": shipped.arguments(specs[name]), "least_cache": least})
    env = next(iter(specs.values())).env
    return {it["name"]: {**it, "capability": capability} for it in pretend.ask("engines", jobs, env)}


@pytest.fixture(scope="module", params=CAPABILITIES)
def answers(request: pytest.FixtureRequest, pretend: Machine, hub: Path) -> dict[str, Any]:
    """All engines on one kind of card; the shipped YAML's alone on those that it is not made for."""
    everything = request.param == CAPABILITIES[-1]
    engines = [it for it in ENGINES.values() if everything or it.profile == "rtx5080"]
    return ask(pretend, hub, request.param, engines)


def test_vllm_takes_every_argument_and_the_cache_holds_one_request(answers: dict[str, Any]) -> None:
    for name, it in answers.items():
        assert "error" not in it, (name, it["error"])
        assert "refused" not in it["cache"], (name, it["cache"])
        assert it["max_model_len"] == ENGINES[name].estimate().context


def test_every_model_can_sleep_and_runs_with_the_second_model_runner(answers: dict[str, Any]) -> None:
    for name, it in answers.items():
        assert it["sleeps"], name
        assert it["second_runner"], name


def test_linear_layers_and_attention_take_kernels_that_come_compiled_or_with_triton(
    answers: dict[str, Any],
) -> None:
    """Those of FlashInfer are compiled when they are first used, by nvcc, which is not there."""
    for name, it in answers.items():
        assert it["linear"] == [FOUR_BITS.get(it["capability"], "MarlinLinearKernel")], name
        assert it["dtype"] == "torch.float16", name
        fp8 = ENGINES[name].estimate().flags.kv_bits == 8
        assert it["attention"] == ["TRITON_ATTN" if fp8 else "FLASH_ATTN"], name
        assert "FLASHINFER" not in it["encoder"], name


def test_without_a_toolkit_vllm_passes_flashinfer_by(answers: dict[str, Any]) -> None:
    """Its kernels would have to be compiled, and its autotuner would run the model some times more."""
    for name, it in answers.items():
        assert not it["has_flashinfer"], name


def test_the_plan_knows_the_longest_context_as_vllm_does(answers: dict[str, Any]) -> None:
    for name, it in answers.items():
        known = ENGINES[name].estimate()
        assert known.cache is not None
        assert known.flags.kv_cache_memory_bytes is not None
        holds = known.cache.holds(known.flags.kv_cache_memory_bytes, known.flags.kv_bits)
        assert holds == it["cache"]["longest"], (name, it["cache"])


def test_what_the_plan_calls_the_least_cache_is_the_least_that_vllm_takes(answers: dict[str, Any]) -> None:
    for name, it in answers.items():
        assert "refused" not in it["least"], (name, it["least"])
        assert "refused" in it["below"], (name, it["below"])


def test_the_plan_knows_the_weights_to_the_byte(answers: dict[str, Any]) -> None:
    """Beside them are only tables of positions, which the margin for a vision model's pictures covers."""
    for name, it in answers.items():
        assert ENGINES[name].estimate().weights == it["weights"], name
        assert it["tables"] < 128 * MIB, name
