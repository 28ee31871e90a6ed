"""When two answers to the probe are the same."""

from __future__ import annotations

import pytest

from roundhouse.launchers.gauge import Foreign, Reading, foreign
from roundhouse.launchers.vllm.sleeping import Answer, same

NAN = float("nan")


@pytest.mark.parametrize(
    ("answer", "expected", "alike"),
    [
        ("[5, 6]", "[5, 6]", True),
        ("!!!!", "[5, 6]", False),
        ("", "[5, 6]", False),
        ([1.0, 2.0], [1.01, 1.99], True),
        ([2.0, 4.0], [1.0, 2.0], True),  # the length of a vector says nothing
        ([-1.0, -2.0], [1.0, 2.0], False),
        ([2.0, -1.0], [1.0, 2.0], False),
        ([0.0, 0.0], [1.0, 2.0], False),
        ([NAN, 2.0], [1.0, 2.0], False),
        ([1.0], [1.0, 2.0], False),
        ([], [], False),
        ("[1.0, 2.0]", [1.0, 2.0], False),
    ],
)
def test_answers_are_compared_but_for_rounding(answer: Answer, expected: Answer, alike: bool) -> None:
    assert same(answer, expected) is alike


def test_what_nobody_is_listed_for_belongs_to_others() -> None:
    reading = Reading(total=100, used=60, by_pid={1: 20, 2: 10})
    assert reading.held({1}) == 20
    assert foreign(reading, {1, 2}) == Foreign(30)


def test_where_the_driver_names_nobody_all_but_the_booked_belongs_to_others() -> None:
    reading = Reading(total=100, used=60, by_pid=None)
    assert reading.held({1}, others=45) == 15
    assert reading.held({1}, others=80) == 0
    assert foreign(reading, {1}, booked=20) == Foreign(40)
