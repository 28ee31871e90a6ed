"""Which engine environment is used, by the machine's card and the configuration."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from roundhouse.config import paths
from roundhouse.deploy.setup import card, choice
from roundhouse.deploy.setup.card import CardError, Cards
from roundhouse.deploy.setup.choice import Kind
from roundhouse.deploy.setup.command import needs

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
    ("line", "engine"),
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
def test_the_set_up_makes_what_the_command_will_use(have: Have, line: str, engine: Kind | None, tmp_path: Path) -> None:
    have(CARDS)
    asked = needs(line.split(), tmp_path)
    assert asked.engine is engine
    assert (asked.on_card is not None) == (engine is Kind.CUDA)


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


@pytest.mark.parametrize("profile", ["cpu", *choice.FOR_A_CARD])
def test_a_profile_is_the_same_file_for_the_set_up_and_for_the_command(profile: paths.Profile) -> None:
    assert choice.profile_file(profile, paths.project_root()) == paths.default_config_file(profile)


def test_every_profile_but_two_is_for_a_card() -> None:
    assert {*choice.FOR_A_CARD, "auto", "cpu"} == set(paths.PROFILES)
