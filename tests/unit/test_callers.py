"""Who comes back: learned from pauses, bounded in memory, robust against odd callers and clocks."""

from __future__ import annotations

import json

import pytest

from roundhouse.residency.learned.callers import CALLERS, Callers


def talk(callers: Callers, caller: str, gaps: list[float], now: float = 0.0, model: str = "m") -> float:
    """Requests of no length with these pauses between them; the moment of the last one's end."""
    callers.ended(caller, model, now, 0.5)
    for gap in gaps:
        now += gap
        callers.asked(caller, model, now)
        callers.ended(caller, model, now, 0.5)
    return now


def test_of_somebody_new_nothing_is_expected_while_nobody_was_ever_seen_to_come_back() -> None:
    callers = Callers()
    callers.ended("a", "m", 0.0, 0.5)
    assert callers.returns("m", 1.0, 16) == []


def test_who_has_come_back_after_two_seconds_is_expected_after_two_seconds() -> None:
    callers = Callers()
    now = talk(callers, "a", [2.0] * 6)
    (it,) = callers.returns("m", now + 0.5, 16)
    assert it.chance == pytest.approx(1.0)
    assert it.at == pytest.approx(now + 2.0)
    assert it.by(now + 1.9) == 0.0
    assert callers.returns("other", now, 16) == []


def test_who_is_away_for_longer_than_ever_before_is_gone() -> None:
    callers = Callers()
    now = talk(callers, "a", [2.0] * 6)
    assert callers.returns("m", now + 60, 16) == []


def test_a_newcomer_is_judged_by_how_newcomers_behaved() -> None:
    callers = Callers()
    talk(callers, "agent", [1.0] * 3)
    callers.ended("new", "m", 10.0, 0.5)
    (it,) = [r for r in callers.returns("m", 10.5, 16) if r.caller == "new"]
    assert it.chance > 0.5
    for number in range(40):  # now come many that ask only once
        callers.ended(f"once {number}", "m", 20.0 + number, 0.5)
    callers.ended("newest", "m", 100.0, 0.5)
    chances = {r.caller: r.chance for r in callers.returns("m", 100.5, 64)}
    assert chances.get("newest", 0.0) < 0.1


def test_one_who_alternates_between_models_is_not_expected_back_at_the_first() -> None:
    callers = Callers()
    for number in range(12):
        model = "ab"[number % 2]
        callers.asked("x", model, float(number))
        callers.ended("x", model, number + 0.5, 0.5)
    assert all(r.chance < 0.2 for r in callers.returns("b", 12.0, 16))


def test_what_was_learned_is_kept_and_what_goes_on_is_not() -> None:
    callers = Callers()
    now = talk(callers, "a", [2.0] * 6)
    again = Callers.load(json.loads(json.dumps(callers.dump())))
    assert again.returns("m", now, 16) == []
    again.ended("a", "m", 0.0, 0.5)
    (it,) = again.returns("m", 0.5, 16)
    assert it.chance == pytest.approx(1.0)


def test_habits_are_kept_and_a_memory_without_any_is_one_too() -> None:
    callers = Callers()
    for number in range(8):
        model = "ab"[number % 2]
        callers.asked("x", model, 10.0 * number)
        callers.ended("x", model, 10.0 * number + 4.0, 0.5)
    again = Callers.load(json.loads(json.dumps(callers.dump())))
    again.ended("x", "a", 0.0, 0.5)
    (first, *_) = found = again.nexts(1.0, 16)
    assert {it.model for it in found} == {"b"}
    assert first.in_s == pytest.approx(5.0)
    assert sum(it.chance for it in found) == pytest.approx(1.0)
    Callers.load({"callers": {}, "pool": []})


@pytest.mark.parametrize("document", [{}, {"callers": 3, "pool": []}, {"callers": {"a": [["x", 1]]}, "pool": []}])
def test_what_is_no_memory_is_said_to_be_none(document: dict[str, object]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        Callers.load(document)


def test_a_hundred_thousand_one_off_callers_cost_no_more_memory_than_a_few_thousand() -> None:
    callers = Callers()
    for number in range(100_000):
        callers.asked(f"c{number}", "m", float(number))
        callers.ended(f"c{number}", "m", number + 0.5, 0.5)
    assert len(callers._known) == CALLERS
    assert sum(map(len, callers._by_model.values())) <= CALLERS
    assert len(callers.dump()["callers"]) == 0


def test_a_clock_that_goes_backwards_and_requests_that_never_ended_are_harmless() -> None:
    callers = Callers()
    callers.ended("a", "m", 100.0, 0.5)
    callers.asked("a", "m", 90.0)
    callers.asked("a", "m", 80.0)
    callers.ended("a", "m", 70.0, 0.5)
    for it in callers.returns("m", 60.0, 16):
        assert 0.0 <= it.chance <= 1.0


def test_an_agent_that_vanishes_is_forgotten_among_many_others() -> None:
    callers = Callers()
    talk(callers, "gone", [1.0] * 3)
    for number in range(CALLERS):
        talk(callers, f"c{number}", [1.0], now=float(number))
    assert "gone" not in callers._known


def chance_of(callers: Callers, now: float) -> float:
    return max((it.chance for it in callers.returns("m", now, 16)), default=0.0)


def test_a_caller_that_asks_on_without_its_answers_is_not_waited_for() -> None:
    callers = Callers()
    for number in range(5):  # one every ten seconds, while the model is away
        callers.asked("a", "m", 10.0 * number)
    for _ in range(5):
        callers.ended("a", "m", 50.0, 0.5)
    callers.asked("a", "m", 55.0)
    callers.ended("a", "m", 56.0, 0.5)
    assert chance_of(callers, 57.0) < 0.1


@pytest.mark.parametrize("apart_s", [0.0, 0.1])
def test_parallel_streams_of_one_caller_are_waited_for(apart_s: float) -> None:
    callers = Callers()
    for number in range(5):
        callers.asked("a", "m", apart_s * number)
    for turn in range(4):
        for _ in range(5):
            callers.ended("a", "m", 50.0 + 10 * turn, 0.5)
        for _ in range(5):
            callers.asked("a", "m", 55.0 + 10 * turn)
    for _ in range(5):
        callers.ended("a", "m", 100.0, 0.5)
    assert chance_of(callers, 101.0) > 0.9


def test_who_was_refused_or_gave_up_and_asks_again_had_no_other_request() -> None:
    callers = Callers()
    now = 0.0
    for _ in range(5):
        callers.asked("a", "m", now)
        callers.unanswered("a")
        now += 10.0
    for _ in range(3):
        callers.asked("a", "m", now)
        callers.ended("a", "m", now + 1.0, 0.5)
        now += 3.0
    assert chance_of(callers, now - 1.0) > 0.9
