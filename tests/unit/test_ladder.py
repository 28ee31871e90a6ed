"""The sleep ladder, move by move: who sleeps, how deep, who wakes, and what happens when that goes wrong."""

from __future__ import annotations

import pytest

from roundhouse.footprint.need import GIB, MIB
from roundhouse.residency.codes import Code
from roundhouse.residency.machine.engine import Options
from roundhouse.residency.machine.facts import (
    Adopted,
    Alarm,
    Asked,
    Exited,
    Failed,
    Gone,
    Grant,
    Order,
    Prepare,
    Ready,
    Refuse,
    Seen,
    Sleep,
    Slept,
    Start,
    Stop,
    Stopped,
    SwitchCommanded,
    Ticked,
    Ticket,
    UnloadCommanded,
    Wake,
    Woke,
)
from roundhouse.residency.machine.health import SLEEPLESS_FIRST_S
from roundhouse.residency.machine.idle import DEFAULT_AFTER_S
from roundhouse.residency.machine.snapshot import status
from roundhouse.residency.machine.states import IllegalMove, State
from tests.support.driver import Driver, on_card


def moves(orders: list[Order]) -> list[object]:
    """The orders that move engines, as (kind, model) or (kind, model, level)."""
    found: list[object] = []
    for order in orders:
        match order:
            case Sleep(model=model, level=level):
                found.append(("sleep", model, level))
            case Start(model=model) | Wake(model=model) | Stop(model=model):
                found.append((type(order).__name__.lower(), model))
    return found


def test_a_switch_puts_the_resident_to_sleep_and_the_next_one_wakes_it() -> None:
    drive = on_card({"a": 12, "b": 12})
    drive.bring("a")
    first, orders = drive.ask("b")
    assert moves(orders) == [("sleep", "a", 1)]
    assert moves(drive.slept("a")) == [("start", "b")]
    assert drive.ready("b") == [Grant(first)]
    drive(Gone(first))
    again, orders = drive.ask("a")
    assert moves(orders) == [("sleep", "b", 1)]
    assert moves(drive.slept("b")) == [("wake", "a")]
    assert drive(Woke("a")) == [Grant(again)]
    assert drive.machine.counters.wakes == 1
    assert drive.machine.counters.starts == 2


def test_nobody_is_put_to_sleep_in_the_middle_of_an_answer() -> None:
    drive = on_card({"a": 12, "b": 12})
    drive.bring("a")
    holder, _ = drive.ask("a")
    _, orders = drive.ask("b")
    assert moves(orders) == []
    assert moves(drive(Gone(holder))) == [("sleep", "a", 1)]


def test_two_that_fit_side_by_side_are_awake_together_and_nobody_drains() -> None:
    drive = on_card({"a": 6, "b": 6, "c": 6})
    drive.bring("a")
    holder, _ = drive.ask("a")
    second, orders = drive.ask("b")
    assert moves(orders) == [("start", "b")]
    third, orders = drive.ask("a")  # b starts beside it, and a goes on
    assert orders == [Grant(third)]
    assert drive.ready("b") == [Grant(second)]
    assert [drive.state(m) for m in "ab"] == [State.READY, State.READY]
    for ticket in (holder, third):
        drive(Gone(ticket))
    _, orders = drive.ask("c")  # the one that has nothing to do makes room, though it was used last
    assert moves(orders) == [("sleep", "a", 1)]


def test_of_two_that_could_make_room_the_least_recently_used_does() -> None:
    drive = on_card({"a": 6, "b": 6, "c": 6})
    drive.bring("a")
    drive.now += 1
    drive.bring("b")
    assert moves(drive.ask("c", after=1)[1]) == [("sleep", "a", 1)]


def test_without_room_in_ram_a_model_sleeps_at_level_2_and_one_that_may_not_is_stopped() -> None:
    drive = on_card({"a": 12, "b": 12, "c": 12}, ram=20, c=Options((1,)))
    drive.bring("a")
    _, orders = drive.ask("b")
    assert moves(orders) == [("sleep", "a", 1)]
    drive.slept("a")
    drive.ready("b")
    drive(Gone(Ticket(2)))
    _, orders = drive.ask("c")
    assert moves(orders) == [("sleep", "b", 2)]  # a's weights are in RAM: b's do not fit beside them
    drive.slept("b")
    drive.ready("c")
    drive(Gone(Ticket(3)))
    assert moves(drive.ask("a")[1]) == [("stop", "c")]


def test_ram_that_was_pinned_stays_pinned_after_waking_and_is_back_after_a_stop() -> None:
    drive = on_card({"a": 12, "b": 12}, ram=20)
    drive.bring("a")
    drive.bring("b")
    drive.bring("a")  # a has slept at level 1, b at level 2
    assert drive.machine.engines["b"].level == 2
    drive(UnloadCommanded(Ticket(90), None))
    drive(Stopped("a"))
    drive(Stopped("b"))
    drive.bring("b")
    assert moves(drive.ask("a")[1]) == [("sleep", "b", 1)]


def test_a_bigger_model_has_the_least_useful_sleeper_stopped() -> None:
    drive = on_card({"a": 12, "b": 12, "huge": 13.5})
    for model in "ab":
        drive.bring(model)
        drive.now += 1
    _, orders = drive.ask("huge")
    assert moves(orders) == [("stop", "a")]  # asleep since long ago; b sleeps
    assert moves(drive(Stopped("a"))) == [("sleep", "b", 1)]
    assert moves(drive.slept("b")) == [("start", "huge")]


def test_what_cannot_fit_is_refused_at_once_with_the_figures() -> None:
    drive = on_card({"a": 6, "huge": 17})
    drive.bring("a")
    ticket, orders = drive.ask("huge")
    text = "huge does not fit on gpu0: it needs 17.0 GiB, models can have 15.0; see 'roundhouse plan'"
    assert orders == [Refuse(ticket, Code.DOES_NOT_FIT, text)]
    assert drive.state("a") is State.READY


def test_what_does_not_fit_because_of_a_game_is_refused_with_a_time() -> None:
    drive = on_card({"a": 12})
    drive(Seen("gpu0", 10 * GIB))
    _, orders = drive.ask("a")
    (refused,) = orders
    assert isinstance(refused, Refuse)
    assert "other programs use 10.0" in refused.message
    assert refused.retry_after_s == 30
    drive(Seen("gpu0", 0))
    assert moves(drive.ask("a")[1]) == [("start", "a")]


def test_a_game_that_presses_gets_the_memory_of_an_idle_engine_but_not_of_a_busy_one() -> None:
    drive = on_card({"a": 6, "b": 6})
    drive.bring("a")
    drive.now += 1
    holder, _ = drive.ask("b")
    drive.ready("b")
    assert moves(drive(Seen("gpu0", 8 * GIB))) == [("sleep", "a", 1)]
    drive.slept("a")
    assert moves(drive(Seen("gpu0", 11 * GIB))) == [("stop", "a")]  # its residual, too
    drive(Stopped("a"))
    assert drive.state("b") is State.READY
    assert moves(drive(Gone(holder))) == [("sleep", "b", 1)]


def test_an_engine_that_does_not_sleep_is_killed_and_stopped_for_a_while_instead() -> None:
    drive = on_card({"a": 12, "b": 12})
    drive.bring("a")
    asked, _ = drive.ask("b")
    orders = drive(Failed("a", "model 'a': it does not sleep"))
    assert Stop("a", True, "it did not sleep or wake") in orders
    assert any(isinstance(order, Alarm) for order in orders)
    assert moves(drive(Stopped("a"))) == [("start", "b")]
    assert drive.ready("b") == [Grant(asked)]
    drive(Gone(asked))
    drive.bring("a")
    assert moves(drive.ask("b")[1]) == [("stop", "a")]
    drive(Stopped("a"))
    drive.ready("b")
    drive(Gone(Ticket(drive.tickets)))
    drive.now += SLEEPLESS_FIRST_S
    drive.bring("a")
    assert moves(drive.ask("b")[1]) == [("sleep", "a", 1)]


def test_an_engine_that_wakes_to_something_else_is_killed_and_started_cold_for_those_who_wait() -> None:
    drive = on_card({"a": 12, "b": 12})
    drive.bring("a")
    drive.bring("b")
    asked, _ = drive.ask("a")
    drive.slept("b")
    assert moves(drive(Failed("a", "model 'a': it answers something else"))) == [("stop", "a")]
    assert moves(drive(Stopped("a"))) == [("start", "a")]
    assert drive.ready("a") == [Grant(asked)]


def test_a_sleeper_that_keeps_more_each_time_is_stopped() -> None:
    drive = on_card({"a": 12, "b": 12})
    drive.bring("a")
    drive.ask("b")
    drive.slept("a", residual=GIB)
    drive.ready("b")
    drive(Gone(Ticket(drive.tickets)))
    for grown in (100, 200, 300):
        drive.bring("a")
        drive.ask("b")
        drive.slept("a", residual=GIB + grown * MIB)
        orders = drive(Woke("b"))
        drive(Gone(Ticket(drive.tickets)))
    assert moves(orders) == [("stop", "a")]
    drive(Stopped("a"))
    drive.bring("a")
    assert not drive.machine.engines["a"].worn


def test_how_much_a_sleeper_may_keep_is_half_until_it_was_measured() -> None:
    drive = on_card({"a": 12, "b": 12})
    ticket, _ = drive.ask("a")
    drive(Ready("a", 1, 12 * GIB))
    drive(Gone(ticket))
    asked, orders = drive.ask("b")
    assert orders == [Sleep("a", 1, 6 * GIB, orders[0].reason)]  # type: ignore[union-attr]
    drive.slept("a", residual=GIB)
    drive.ready("b")
    drive(Gone(asked))
    drive.bring("a")
    orders = drive.ask("b")[1]
    assert orders == [Sleep("a", 1, GIB + 256 * MIB, orders[0].reason)]  # type: ignore[union-attr]


def test_an_engine_that_dies_while_another_moves_is_cleaned_up_after_that() -> None:
    drive = on_card({"a": 6, "b": 6})
    drive.bring("a")
    held, _ = drive.ask("a")
    asked, _ = drive.ask("b")
    orders = drive(Exited("a", "killed"))
    assert moves(orders) == []
    waiting, orders = drive.ask("a")
    assert orders == []
    assert moves(drive.ready("b")) == [("stop", "a")]
    assert moves(drive(Stopped("a"))) == [("start", "a")]
    assert drive.ready("a") == [Grant(waiting)]
    assert drive(Gone(held)) == []
    drive(Gone(asked))


def test_a_sleeper_that_dies_is_cleaned_up_and_started_when_it_is_asked_for() -> None:
    drive = on_card({"a": 12, "b": 12})
    drive.bring("a")
    drive.bring("b")
    assert moves(drive(Exited("a", "killed"))) == [("stop", "a")]
    drive(Stopped("a"))
    assert moves(drive.ask("a")[1]) == [("sleep", "b", 1)]


def test_a_request_that_comes_while_its_model_falls_asleep_wakes_it() -> None:
    drive = on_card({"a": 12, "b": 12})
    drive.bring("a")
    leaver, _ = drive.ask("b")
    asked, orders = drive.ask("a")
    assert orders == []
    drive(Gone(leaver))
    assert moves(drive.slept("a")) == [("wake", "a")]
    assert drive(Woke("a")) == [Grant(asked)]


def test_an_unload_stops_what_sleeps_and_what_is_awake_one_after_the_other() -> None:
    drive = on_card({"a": 12, "b": 12})
    drive.bring("a")
    drive.bring("b")
    order = Ticket(90)
    assert moves(drive(UnloadCommanded(order, None))) == [("stop", "a")]
    assert moves(drive(Stopped("a"))) == [("stop", "b")]
    assert drive(Stopped("b")) == [Grant(order)]


def test_a_forced_unload_ends_an_engine_that_falls_asleep() -> None:
    drive = on_card({"a": 12, "b": 12})
    drive.bring("a")
    drive.ask("b")
    assert drive(UnloadCommanded(Ticket(90), "a", force=True)) == [Stop("a", True, "forced")]


def test_an_engine_that_was_idle_for_long_sleeps_and_later_stops() -> None:
    drive = on_card({"a": 12}, a=Options((1,), idle_sleep_s=60, idle_stop_s=600))
    drive.bring("a")
    assert moves(drive.tick()) == [("sleep", "a", 1)]
    assert drive.now == 60
    drive.slept("a")
    assert moves(drive.tick()) == [("stop", "a")]
    assert drive.now == 600
    drive(Stopped("a"))
    assert drive.machine.wake_at() is None


def test_a_request_puts_the_idle_time_back_to_nothing() -> None:
    drive = on_card({"a": 12}, a=Options((1,), idle_sleep_s=60))
    drive.bring("a")
    ticket, _ = drive.ask("a", after=59)
    assert drive.machine.wake_at() != 60
    drive(Gone(ticket), after=30)
    assert drive.machine.wake_at() == 59 + 30 + 60


def test_the_default_model_comes_back_when_the_others_have_been_idle() -> None:
    drive = on_card({"a": 12, "b": 12}, a=Options((1,), default=True))
    drive.bring("a")
    drive.bring("b")
    assert moves(drive.tick()) == [("sleep", "b", 1)]
    assert drive.now == DEFAULT_AFTER_S
    assert moves(drive.slept("b")) == [("wake", "a")]
    drive(Woke("a"))
    assert drive.machine.wake_at() is None


def test_a_start_of_the_default_is_ended_for_somebody_who_asks_for_another() -> None:
    drive = on_card({"a": 12, "b": 12}, a=Options((), default=True), b=Options(()))
    assert moves(drive(Ticked())) == [("start", "a")]
    asked, orders = drive.ask("b")
    assert moves(orders) == [("stop", "a")]
    assert moves(drive(Stopped("a"))) == [("start", "b")]
    assert drive.ready("b") == [Grant(asked)]


def test_what_is_to_be_preloaded_is_started_at_once_and_only_once() -> None:
    drive = on_card({"a": 12, "b": 2}, a=Options((1,), preload=True))
    assert moves(drive(Ticked())) == [("start", "a")]
    assert Prepare("b") in drive.ready("a")
    drive(UnloadCommanded(Ticket(90), "a"))
    assert moves(drive(Stopped("a"))) == []


def test_a_pinned_model_stays_and_comes_back_after_a_crash_unless_a_person_takes_it_off() -> None:
    drive = on_card({"a": 12, "b": 12}, a=Options((1, 2), pinned=True, idle_sleep_s=5))
    assert moves(drive(Ticked())) == [("start", "a")]
    drive.ready("a")
    ticket, orders = drive.ask("b")
    text = "b does not fit on gpu0: it needs 12.0 GiB, models can have 15.0, a is pinned; see 'roundhouse plan'"
    assert orders == [Refuse(ticket, Code.DOES_NOT_FIT, text)]
    drive(Exited("a", "killed"))
    assert moves(drive(Stopped("a"))) == [("start", "a")]
    drive.ready("a")
    drive(UnloadCommanded(Ticket(90), "a"))
    assert moves(drive(Stopped("a"))) == []
    assert moves(drive.ask("a")[1]) == [("start", "a")]


def test_a_pinned_model_that_cannot_start_is_tried_again_after_its_back_off() -> None:
    drive = on_card({"a": 12}, a=Options(pinned=True))
    drive(Ticked())
    drive(Failed("a", "no weights"))
    assert moves(drive.tick()) == [("start", "a")]
    assert drive.now == 5


def test_a_switch_that_a_person_orders_wakes_a_sleeper() -> None:
    drive = on_card({"a": 12, "b": 12})
    drive.bring("a")
    drive.bring("b")
    assert moves(drive(SwitchCommanded(Ticket(90), "a"))) == [("sleep", "b", 1)]
    assert moves(drive.slept("b")) == [("wake", "a")]
    assert Grant(Ticket(90)) in drive(Woke("a"))


def test_sleepers_of_an_earlier_process_are_taken_over_at_their_level() -> None:
    drive = on_card({"a": 12, "b": 12})
    drive(Adopted("a", 1, level=2))
    drive(Adopted("b", 2))
    assert status(drive.machine, drive.now)["models"]["a"]["sleep_level"] == 2
    drive.now += 10
    _, orders = drive.ask("a")
    assert moves(orders) == [("sleep", "b", 1)]
    assert moves(drive.slept("b")) == [("wake", "a")]


def test_who_may_not_switch_is_not_given_a_sleeper() -> None:
    drive = on_card({"a": 12, "b": 12})
    drive.bring("a")
    drive.bring("b")
    (refused,) = drive(Asked(Ticket(90), "a", may_switch=False))
    assert isinstance(refused, Refuse)
    assert refused.code is Code.WOULD_SWITCH


def test_what_was_measured_of_a_wake_is_what_the_next_one_is_told() -> None:
    drive = on_card({"a": 12, "b": 12})
    first, _ = drive.ask("a")
    drive.ready("a", after=30)
    drive(Gone(first))
    second, _ = drive.ask("b")
    drive.slept("a", after=2)
    drive.ready("b", after=30)
    drive(Gone(second))
    engine = drive.machine.engines["a"]
    assert drive.machine.forecast(engine, drive.now).expected_s == 30.0  # it never woke
    third, _ = drive.ask("a")
    drive.slept("b", after=3)
    drive(Woke("a"), after=0.5)
    drive(Gone(third))
    drive.ask("b")
    drive.slept("a", after=2)
    measured = status(drive.machine, drive.now)["models"]["a"]["measured"]
    assert (measured["start_s"], measured["sleep_s"], measured["wake_s"]) == (30.0, 2.0, 0.5)
    assert drive.machine.forecast(engine, drive.now).expected_s == 0.5 + 30.0 + 3.0  # b wakes, and then has to sleep


def test_slept_is_no_answer_of_an_engine_that_was_not_told_to() -> None:
    drive = Driver()
    drive.bring("a")
    with pytest.raises(IllegalMove, match="cannot go from ready to asleep"):
        drive(Slept("a", 1))
