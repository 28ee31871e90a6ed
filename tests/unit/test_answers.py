"""How long answers take to one caller: learned, mixed with what is usual, kept."""

from __future__ import annotations

import json

import pytest

from roundhouse.residency.learned.callers import Callers
from roundhouse.residency.learned.durations import SURE, USUAL, Answers


def test_to_somebody_new_an_answer_takes_as_long_as_is_usual_even_if_that_is_learned_later() -> None:
    it = Callers().answer("new", "m")
    assert it == USUAL
    assert (it.seconds(0.0), it.seconds(4.0)) == (0.0, 4.0)


def test_the_more_answers_are_known_the_less_counts_what_is_usual() -> None:
    answers = Answers()
    for known in range(1, SURE + 20):
        answers.took("m", 60.0)
        assert answers.next("m").seconds(2.0) == pytest.approx(60.0 - 58.0 / (min(known, SURE) + 1))
    assert answers.next("other").seconds(2.0) == 2.0


def test_a_caller_that_asks_for_something_else_now_is_believed_after_a_few_answers() -> None:
    answers = Answers()
    for seconds in [60.0] * 20 + [2.0] * 6:
        answers.took("m", seconds)
    assert answers.next("m").seconds(2.0) < 10.0


def test_durations_are_kept_of_callers_that_come_back_and_a_memory_without_any_is_one_too() -> None:
    callers = Callers()
    for number in range(3):
        callers.asked("writer", "m", 100.0 * number)
        callers.ended("writer", "m", 100.0 * number + 60.0, 60.0)
    callers.asked("once", "m", 0.0)
    callers.ended("once", "m", 60.0, 60.0)
    document = json.loads(json.dumps(callers.dump()))
    assert list(document["answers"]) == ["writer"]
    assert Callers.load(document).answer("writer", "m") == callers.answer("writer", "m")
    del document["answers"]
    assert Callers.load(document).answer("writer", "m") == USUAL


@pytest.mark.parametrize(
    "answers",
    [
        3,
        {"m": 3},
        {"m": [1.0]},
        {"m": [float("nan"), 2]},
        {"m": [-1.0, 2]},
        {"m": [1.0, 0]},
        {"m": [1.0, float("inf")]},
    ],
)
def test_what_are_no_durations_is_refused(answers: object) -> None:
    known = {"callers": {"a": [[1.0, True]]}, "pool": []}
    with pytest.raises(ValueError):  # noqa: PT011
        Callers.load(known | {"answers": {"a": answers}})
