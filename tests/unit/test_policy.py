"""The decision over a resident while others wait, case by case."""

from __future__ import annotations

from dataclasses import replace

import pytest

from roundhouse.residency.learned.pauses import Return
from roundhouse.residency.machine.decisions import DecisionLog
from roundhouse.residency.machine.policy import Decision, Demand, Kind, Resident, decide, last_moment

NOW = 100.0
OTHER = Demand("b", oldest=NOW, deadline=NOW + 300, cost_s=10.0, weight=1.0, visit_s=2.0)
BUSY = Resident(
    cost_s=10.0, service_s=4.0, ready_since=NOW, contested_since=NOW, dry_since=NOW, busy_since=NOW, busy=True
)


def stays_for(resident: Resident, *returns: Return) -> float:
    return decide(NOW, resident, [OTHER], returns).wake_at - NOW


def test_the_gate_stays_open_longer_for_strangers_who_are_going_to_come() -> None:
    assert stays_for(replace(BUSY, strangers=0.5)) > 1.5 * stays_for(BUSY)


def test_the_gate_stays_open_longer_where_the_drain_is_long() -> None:
    assert stays_for(replace(BUSY, drain_s=20.0)) > stays_for(BUSY)


def test_a_stream_of_known_callers_that_goes_on_for_long_is_interrupted_sooner_than_a_new_one() -> None:
    coming = [Return(f"c{i}", [(NOW + 1, 1.0)], [NOW + 1]) for i in range(3)]
    began = replace(BUSY, ready_since=NOW - 30, busy_since=NOW)
    unbroken = replace(began, busy_since=NOW - 30)
    assert 0 < stays_for(unbroken, *coming) < stays_for(began, *coming)


def test_the_gate_stays_open_longer_where_slots_are_short_for_while_it_drains_they_serve_nobody() -> None:
    assert stays_for(replace(BUSY, taken=1.0)) > 2 * stays_for(BUSY)
    assert stays_for(replace(BUSY, taken=0.1)) < 1.1 * stays_for(BUSY)


def test_where_more_work_comes_than_a_bound_leaves_room_for_switches_a_round_takes_longer() -> None:
    soon = replace(OTHER, oldest=NOW - 20, deadline=NOW + 20, cost_s=20.0, answer_s=2.0)
    away = replace(BUSY, cost_s=20.0)
    quiet, half, full = (last_moment([replace(soon, load=load)], away) for load in (0.0, 0.5, 5.0))
    assert half == pytest.approx(quiet + 20.0 + 4.0 + 20.0 + 2.0)
    assert full == half  # never more than twice as long
    patient = replace(soon, deadline=NOW + 280)
    assert last_moment([replace(patient, load=0.5)], away) == last_moment([patient], away)


def test_the_last_moment_comes_sooner_where_an_answer_is_known_to_take_long() -> None:
    assert last_moment([OTHER], replace(BUSY, drain_s=90.0)) == last_moment([OTHER], BUSY) - 90.0 + 2 * BUSY.service_s


def test_a_dry_model_does_not_idle_where_more_and_more_strangers_would_wait() -> None:
    coming = [Return("c", [(NOW + 3, 1.0)], [NOW + 3])]
    dry = replace(BUSY, busy=False)
    assert decide(NOW, dry, [OTHER], coming).stay
    crowd = replace(OTHER, strangers=1.0)
    assert not decide(NOW, dry, [crowd], coming).stay


def test_a_bound_that_nobody_can_keep_is_no_reason_to_leave_at_once() -> None:
    impossible = replace(OTHER, deadline=NOW + 1)
    assert decide(NOW, BUSY, [impossible], ()).stay


def test_each_decision_has_its_kind() -> None:
    coming = [Return("c", [(NOW + 3, 1.0)], [NOW + 3])]
    dry = replace(BUSY, busy=False)
    ordered = replace(OTHER, commanded=True)
    late = replace(OTHER, oldest=NOW - 300, deadline=NOW)
    kinds = [
        decide(NOW, BUSY, [OTHER], ()).kind,
        decide(NOW, dry, [OTHER], coming).kind,
        decide(NOW, BUSY, [late], ()).kind,
        decide(NOW, dry, [OTHER], ()).kind,
        decide(NOW, BUSY, [ordered], ()).kind,
        decide(NOW, replace(BUSY, shut=True), [OTHER], ()).kind,
        decide(NOW, dry, [replace(OTHER, sure_at=NOW + 0.5)], ()).kind,
    ]
    assert set(kinds) == set(Kind) - {Kind.FORESIGHT}  # which is decided while nobody waits


def test_while_it_drains_the_reason_is_the_one_for_which_it_does_and_what_goes_on_counts_once() -> None:
    decided = DecisionLog()
    for kind, reason in [(Kind.OPEN, "1 s"), (Kind.OPEN, "0 s"), (Kind.GATE, "its turn"), (Kind.DRAINING, "drains")]:
        decided.note(Decision(kind, "b", NOW, reason))
    decided.wanted("b")
    assert decided.reason == "its turn"
    assert (decided.counts[Kind.OPEN], decided.counts[Kind.GATE], decided.counts[Kind.DRAINING]) == (1, 1, 0)
    decided.over()
    decided.wanted("c")
    assert decided.reason == "c is wanted"
