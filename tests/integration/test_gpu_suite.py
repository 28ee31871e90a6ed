"""The tests for a real card, run on the emulated one: they pass where all is well, and each fault is seen by them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from roundhouse.footprint import estimate
from roundhouse.footprint.need import Footprint
from tests.gpu import make_models, models
from tests.gpu.make_models import SHAPES, VOCABULARY
from tests.support import fake_vllm
from tests.support.card import FAKES, GIB, Card
from tests.support.machine import WSL
from tests.support.models import write_qwen

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

ROOT = Path(__file__).resolve().parents[2]
RTX_5080, H200 = int(15.48 * GIB), 140 * GIB
"""What CUDA shows of two cards: the suite is for both, and any between."""

WSL_PLUGIN = f"""
import os
here = tuple(os.uname())
os.uname = lambda: os.uname_result((*here[:2], {WSL!r}, *here[3:]))
"""
"""A plugin of pytest's that makes the kernel say that it is WSL2's."""

START_S = 0.5
"""A start takes longer than a wake: several requests, of some milliseconds each."""


def made(folder: Path, name: str) -> Path:
    """A model as ``make_models`` would have it, but that there is nothing in its weights."""
    config = {
        **SHAPES[name],
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "vocab_size": VOCABULARY,
        "tie_word_embeddings": False,
        "max_position_embeddings": 32768,
    }
    write_qwen(folder / name, config, "awq" if name.endswith("-awq") else "bf16")
    (folder / name / "made").write_text(json.dumps(make_models.describe(name)))
    return folder / name


def footprint(folder: Path, total: int, *args: str) -> Footprint:
    found = estimate.of(str(folder), (*models.ARGS, *args), total).footprint(total)
    assert found is not None
    return found


@dataclass
class Bench:
    """A machine with an emulated card, on which the suite runs."""

    folder: Path
    python: Path

    def card(self, total: int) -> Any:
        """Put a card of ``total`` bytes in."""
        return Card.create(self.folder / "card.json", total=total, ram=2**40)

    def models(self, total: int, *flags: str) -> None:
        """Models that take of a card of ``total`` what is expected of them; ``flags`` of the fake are their faults."""
        for name in models.MADE["short"]:
            where = self.folder / "models" / name
            it, kv = footprint(where if where.exists() else made(where.parent, name), total), 2 * GIB
            sizes = f"--weights {it.awake - it.residual - kv} --kv {kv} --residual {it.residual}"
            words = f"--card {self.folder / 'card.json'} {sizes} --start-delay {START_S} {' '.join(flags)}"
            (where / "fake").write_text(words)

    def run(self, *more: str, **environment: str) -> Outcome:
        """The suite, as somebody with a card runs it."""
        argv = [sys.executable, "-m", "pytest", "tests/gpu", "-p", "no:cacheprovider", "--tb=short", *more]
        argv += ["--gpu-models", str(self.folder / "models"), "--gpu-record", str(self.folder / "records")]
        argv += [f"--basetemp={self.folder / 'tmp'}"]
        env = {name: it for name, it in os.environ.items() if not name.startswith(("FAKE_", "CUDA_", "PYTEST_"))}
        env |= {"ROUNDHOUSE_ENGINE_PYTHON": str(self.python), "PYTHONPATH": str(self.folder / "driver")}
        env |= {"FAKE_CARD": str(self.folder / "card.json")} | environment
        done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
        return Outcome(done.stdout + done.stderr, done.returncode)


@dataclass
class Outcome:
    """What pytest said."""

    text: str
    code: int

    def record(self) -> str:
        """The record that it says it has written."""
        return Path(re.findall(r"^written: (.+)$", self.text, re.MULTILINE)[-1]).read_text()

    @property
    def failed(self) -> set[str]:
        """The tests that failed or could not be set up."""
        return set(re.findall(r"^(?:FAILED|ERROR) tests/gpu/\S+::(\w+)", self.text, re.MULTILINE))

    @property
    def counts(self) -> str:
        """``9 passed``"""
        return re.findall(r"=+ (.*) in [\d.]+s", self.text)[-1]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("bench")
    (folder / "driver").mkdir()
    for part in ("card.py", "pynvml.py"):
        (folder / "driver" / part).symlink_to(FAKES / part)
    (folder / "driver" / "wsl.py").write_text(WSL_PLUGIN)
    return Bench(folder, fake_vllm.make(folder / "engine", cuda=True))


def test_it_passes_on_a_big_card_and_writes_its_record(bench: Bench) -> None:
    card = bench.card(H200)
    bench.models(H200)
    outcome = bench.run()
    assert outcome.counts == "9 passed", outcome.text
    assert card.by_pid == {}
    text = outcome.record()
    for piece in ("Fake card, driver 0.0 (fake)", "13.0", "0.32.0", "no WSL", "first start (host)", "start (stock)"):
        assert piece in text
    for piece in ("| the driver tells processes apart | yes |", "exact pinning, asleep at 2", "a wake without room"):
        assert piece in text
    assert "CUDA Error: out of memory" in text


def test_it_passes_on_16_gb_as_on_wsl2_without_a_host_and_with_a_driver_that_does_not_tell(bench: Bench) -> None:
    bench.card(RTX_5080)
    bench.models(RTX_5080, "--residual-growth", "10M")  # others' growth looks like this
    outcome = bench.run("-p", "wsl", FAKE_CARD_PIDS="no")
    assert outcome.counts == "9 passed", outcome.text
    text = outcome.record()
    for piece in ("-microsoft-standard-WSL2, WSL2", "| the driver tells processes apart | no |"):
        assert piece in text
    assert "| starts | 7 stock (should be stock) |" in text


def test_each_fault_is_seen_and_recorded(bench: Bench) -> None:
    bench.card(H200)
    faults = f"--residual-growth 70M --load-peak {5 * GIB} --kv {4 * GIB}"
    bench.models(H200, *faults.split())
    outcome = bench.run(FAKE_VLLM_CUDA="1")  # a host that refuses to fork
    assert outcome.failed == {
        "test_a_start_comes_from_the_engine_host_wherever_there_is_one",
        "test_a_sleeper_holds_little_and_no_more_from_cycle_to_cycle",
        "test_an_engine_takes_what_was_expected",
        "test_an_engine_takes_no_more_while_it_starts",
    }, outcome.text
    assert "stock (should be host)" in outcome.record()


def test_what_was_seen_before_a_run_broke_off_is_recorded(bench: Bench) -> None:
    bench.card(H200)
    bench.models(H200, "--garbage-after", "1")
    outcome = bench.run("-k", "answers_are_the_same")
    assert outcome.failed == {"test_answers_are_the_same_after_every_wake"}, outcome.text
    assert "not what it answered before it slept" in outcome.text
    assert "first sleep at 1" in outcome.record()


def test_without_a_card_it_is_skipped_and_with_one_that_does_not_answer_it_fails(bench: Bench) -> None:
    bench.card(GIB)
    outcome = bench.run(FAKE_CARD="")
    assert (outcome.counts, outcome.code) == ("9 skipped", 0), outcome.text
    assert "no NVIDIA card" in outcome.text
    outcome = bench.run(FAKE_CARD_LOST="1")
    assert len(outcome.failed) == 9, outcome.text
    assert "GaugeError: the driver does not answer" in outcome.text
