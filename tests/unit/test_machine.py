"""The machine, move by move: who is granted, who waits, what is ordered."""

from __future__ import annotations

import pytest

from roundhouse.residency.codes import Code
from roundhouse.residency.learned.haste import Haste
from roundhouse.residency.machine.bounds import Bounds
from roundhouse.residency.machine.engine import Options
from roundhouse.residency.machine.facts import (
    Adopted,
    Alarm,
    Asked,
    Exited,
    Failed,
    Gone,
    Grant,
    Held,
    Order,
    Prepare,
    Refuse,
    ShutdownCommanded,
    Start,
    Stop,
    Stopped,
    SwitchCommanded,
    Ticket,
    UnloadCommanded,
)
from roundhouse.residency.machine.machine import Machine, Model
from roundhouse.residency.machine.policy import Kind
from roundhouse.residency.machine.snapshot import status
from roundhouse.residency.machine.states import IllegalMove, State
from tests.support.driver import Driver


@pytest.fixture
def drive() -> Driver:
    return Driver()


def test_the_first_request_starts_its_engine_and_is_granted_when_it_answers(drive: Driver) -> None:
    ticket, orders = drive.ask("a")
    assert orders == [Start("a")]
    assert drive.ready("a", after=12.0) == [Grant(ticket)]
    assert drive.machine.engines["a"].measured.start_s == 12.0


def test_everything_that_asked_before_the_engine_was_ready_is_served_at_once(drive: Driver) -> None:
    tickets = [drive.ask("a", after=0.1)[0] for _ in range(20)]
    assert drive.ready("a") == [Grant(t) for t in tickets]


def test_a_resident_with_nothing_to_do_leaves_at_once_for_whoever_waits(drive: Driver) -> None:
    drive.bring("a")
    _, orders = drive.ask("b")
    assert [type(o) for o in orders] == [Stop]
    assert drive(Stopped("a")) == [Start("b")]


def test_a_resident_with_a_lease_is_drained_and_never_stopped_under_it(drive: Driver) -> None:
    holder, _ = drive.ask("a")
    drive.ready("a")
    waiter, orders = drive.ask("b")
    assert orders == [Prepare("b")]
    assert drive.ask("b")[1] == []  # it is being prepared already
    (stop,) = drive(Gone(holder), after=100.0)
    assert isinstance(stop, Stop)
    assert not stop.force
    drive(Stopped("a"))
    assert Grant(waiter) in drive.ready("b")


def test_a_model_is_prepared_anew_when_it_is_next_again(drive: Driver) -> None:
    drive.ask("a")
    drive.ready("a")
    waiter, orders = drive.ask("b")
    assert orders == [Prepare("b")]
    assert drive(Gone(waiter)) == []
    assert drive.ask("c")[1] == [Prepare("c")]
    assert drive.ask("b", after=1.0)[1] == []  # c is next


def test_while_nothing_is_to_be_done_each_model_that_was_not_on_yet_is_prepared_once(drive: Driver) -> None:
    holder, _ = drive.ask("a")
    assert drive.ready("a") == [Grant(holder)]
    assert drive(Gone(holder)) == [Prepare("b")]
    again, orders = drive.ask("a")
    assert orders == [Grant(again)]
    assert drive(Gone(again)) == [Prepare("c")]
    once_more, _ = drive.ask("a")
    assert drive(Gone(once_more)) == []


def test_while_the_gate_is_open_the_resident_serves_newcomers_though_others_wait(drive: Driver) -> None:
    drive.ask("a")
    drive.ready("a", after=10.0)
    drive.ask("b")
    ticket, orders = drive.ask("a", after=10.0)
    assert orders == [Grant(ticket)]


def test_the_gate_shuts_so_that_the_oldest_waiter_is_served_within_its_max_wait() -> None:
    drive = Driver(max_wait_s=60)
    drive.bring("b")
    drive.machine.engines["b"].measured.start_s = 20.0
    holder, _ = drive.ask("a")
    drive(Stopped("b"))
    drive.ready("a")
    asked_at = drive.now
    drive.ask("b")
    assert drive.machine.wake_at() == asked_at + 60 - 20
    drive.tick()
    assert drive.state("a") is State.DRAINING
    late, orders = drive.ask("a")
    assert orders == []
    (stop,) = drive(Gone(holder))
    assert isinstance(stop, Stop)
    drive(Stopped("a"))
    drive.ready("b", after=20.0)
    assert drive.machine.counters.refused == 0
    assert late in drive.machine.engines["a"].waiting


def test_a_shut_gate_opens_again_when_nobody_waits_for_another_model_any_more() -> None:
    drive = Driver(max_wait_s=10)
    drive.ask("a")
    drive.ready("a")
    waiter, _ = drive.ask("b")
    drive.tick()
    newcomer, orders = drive.ask("a")
    assert orders == []
    assert drive(Gone(waiter)) == [Grant(newcomer)]
    assert drive.state("a") is State.READY


def test_the_model_for_which_most_wait_comes_on_first_unless_another_has_waited_for_longer(drive: Driver) -> None:
    holder, _ = drive.ask("a")
    drive.ready("a", after=10)
    drive.ask("c", after=1)
    drive.ask("b", after=1)
    drive.ask("b", after=1)
    drive(Gone(holder))
    assert drive(Stopped("a")) == [Start("b")]


def test_past_half_of_its_max_wait_the_oldest_is_next(drive: Driver) -> None:
    drive.ask("a")
    drive.ask("c")
    for _ in range(5):
        drive.ask("b", after=30.5)
    assert drive(Failed("a", "broken")) == [Refuse(Ticket(1), Code.FAILED, "broken", 5.0), Start("c")]


def test_who_made_way_does_not_come_back_before_the_one_it_made_way_for(drive: Driver) -> None:
    holder, _ = drive.ask("a")
    drive.ready("a")
    drive.ask("b")
    drive.machine.devices["gpu0"].account.owed = 1000.0  # long enough
    drive.tick()
    assert drive.state("a") is State.DRAINING
    for _ in range(9):
        drive.ask("a")
    drive(Gone(holder))
    assert drive(Stopped("a")) == [Start("b")]


def test_a_start_that_nobody_waits_for_any_more_goes_on_and_its_model_is_there_for_who_comes_back(
    drive: Driver,
) -> None:
    """rsynnot/magic-lists-for-navidrome#34: a client with a time-out shorter than the start never gets its model."""
    drive.bring("a")
    drive.ask("b")
    drive(Stopped("a"))
    for _ in range(3):
        ticket = Ticket(drive.tickets)
        assert drive(Gone(ticket), after=5.0) == []
        assert drive.ask("b", after=1.0)[1] == []
    drive(Gone(Ticket(drive.tickets)), after=1.0)
    drive.ready("b", after=1.0)
    ticket, orders = drive.ask("b", after=1.0)
    assert orders == [Grant(ticket)]
    assert drive.machine.counters.starts == 2
    assert drive.machine.engines["b"].measured.start_s == 20.0


def test_a_start_that_nobody_waits_for_is_ended_as_soon_as_another_model_is_wanted(drive: Driver) -> None:
    """mostlygeek/llama-swap#727: abort it, but only when somebody asks for another model."""
    ticket, _ = drive.ask("a")
    drive(Gone(ticket), after=5.0)
    other, orders = drive.ask("b")
    assert orders == [Stop("a", True, "nobody waits for it, and another model is wanted")]
    assert drive(Stopped("a")) == [Start("b")]
    assert drive.ready("b") == [Grant(other)]
    assert drive.state("a") is State.STOPPED


def test_a_start_that_others_wait_behind_is_ended_when_the_last_who_waits_for_it_leaves(drive: Driver) -> None:
    ticket, _ = drive.ask("a")
    drive.ask("b")
    assert [type(o) for o in drive(Gone(ticket), after=5.0)] == [Stop]
    assert drive(Stopped("a")) == [Start("b")]


def test_who_leaves_while_others_make_room_finds_its_model_when_it_comes_back(drive: Driver) -> None:
    drive.bring("a")
    ticket, _ = drive.ask("b")
    assert drive(Gone(ticket), after=3.0) == []
    assert drive(Stopped("a")) == [Start("b")]  # else the device would be left empty
    drive.ready("b")
    assert drive.state("b") is State.READY


def test_what_was_begun_for_nobody_does_not_push_out_who_came_instead(drive: Driver) -> None:
    drive.bring("a")
    ticket, _ = drive.ask("b")
    drive(Gone(ticket), after=3.0)
    again, _ = drive.ask("a")  # while it stops for b
    assert drive(Stopped("a")) == [Start("a")]
    assert drive.ready("a") == [Grant(again)]
    drive(Gone(again))
    assert drive.state("a") is State.READY


def test_a_start_that_nobody_waits_for_is_not_tried_twice(drive: Driver) -> None:
    ticket, _ = drive.ask("a")
    drive(Gone(ticket), after=5.0)
    assert drive(Failed("a", "killed by SIGKILL", retryable=True)) == []
    assert drive.state("a") is State.FAILED


def test_a_request_that_vanishes_within_a_second_costs_the_resident_nothing(drive: Driver) -> None:
    """ggml-org/llama.cpp#25528: an editor's requests, cancelled at the next keystroke, throw the other model out."""
    drive.bring("a")
    for _ in range(5):
        ticket, orders = drive.ask("b", stays=False, caller="editor")
        assert not [o for o in orders if isinstance(o, Stop | Start)]
        drive(Gone(ticket), after=0.9)
        assert drive.state("a") is State.READY
    holder, orders = drive.ask("a")
    assert orders == [Grant(holder)]
    decided = drive.machine.devices["gpu0"].decisions
    assert decided.counts[Kind.HOLD] >= 1
    assert decided.counts[Kind.DRY] == 0


def test_who_stays_waits_a_second_longer_the_first_time_and_then_no_more(drive: Driver) -> None:
    drive.bring("a")
    ticket, _ = drive.ask("b", stays=False, caller="editor")
    assert drive.state("a") is State.READY
    assert [type(o) for o in drive.tick()] == [Stop]
    assert drive.now == pytest.approx(1.0)
    drive(Stopped("a"))
    assert drive.ready("b", after=20.0) == [Grant(ticket)]
    drive(Gone(ticket))
    drive.bring("a")
    drive.ask("b", after=30.0, stays=False, caller="editor")
    assert drive.machine.devices["gpu0"].decisions.counts[Kind.HOLD] == 1


def test_who_is_known_to_stay_goes_before_who_has_only_just_come(drive: Driver) -> None:
    drive.bring("a")
    drive.ask("b", stays=False)
    _, orders = drive.ask("c")
    assert [type(o) for o in orders] == [Stop]
    assert drive(Stopped("a")) == [Start("c")]


def test_nobody_is_held_for_long_where_models_come_quickly_or_where_the_wait_is_short() -> None:
    haste = Haste()
    assert haste.sure_at("key", "b", 10.0, wait_s=300.0, bring_s=None) == 11.0
    assert haste.sure_at("key", "b", 10.0, wait_s=300.0, bring_s=40.0) == 11.0
    assert haste.sure_at("key", "b", 10.0, wait_s=300.0, bring_s=1.0) == 10.25
    assert haste.sure_at("key", "b", 10.0, wait_s=0.5, bring_s=40.0) == 10.25


def test_a_key_whose_requests_left_at_once_has_to_stay_again_until_that_is_long_ago() -> None:
    haste = Haste()
    haste.waited("key", "b", 5.0, left=True)  # a time-out of 5 s is patience enough
    assert haste.stays("key", "b")
    assert haste.stays("another", "b")  # of which nothing is known
    assert not haste.stays("key", "c")
    haste.waited("key", "b", 0.3, left=True)
    held = 0
    while not haste.stays("key", "b"):
        haste.waited("key", "b", 20.0, left=False)
        held += 1
    assert 5 <= held <= 15
    assert Haste.load(haste.dump()).dump() == haste.dump()


def test_who_made_way_for_one_that_left_at_once_comes_back(drive: Driver) -> None:
    drive.bring("a")
    ticket, orders = drive.ask("b")  # its like were known to stay
    assert [type(o) for o in orders] == [Stop]
    drive(Gone(ticket), after=0.3)
    assert drive(Stopped("a")) == [Start("a")]
    drive.ready("a")
    assert drive.state("a") is State.READY


def test_a_start_whose_only_waiter_left_at_once_goes_on_where_nobody_can_come_back(drive: Driver) -> None:
    drive.bring("a")
    ticket, _ = drive.ask("b")
    drive(UnloadCommanded(Ticket(90), "a"))
    assert [type(o) for o in drive(Stopped("a"))] == [Grant, Start]  # the unload is done, and b comes
    assert drive(Gone(ticket), after=0.3) == []
    assert drive.state("b") is State.STARTING


def test_who_waits_in_vain_is_told_what_was_in_the_way() -> None:
    drive = Driver(max_wait_s=60)
    drive.ask("a")
    drive.ask("b")
    refused: list[Refuse] = []
    while not refused:
        refused = [o for o in drive.tick() if isinstance(o, Refuse)]
    assert "a has been starting for 60 s" in refused[0].message


def test_a_waiter_past_its_bound_is_refused_with_a_retry_after_unless_its_switch_is_under_way() -> None:
    drive = Driver(max_wait_s=10)
    drive.ask("a")
    drive.ready("a", after=8)
    b, _ = drive.ask("b")
    c, _ = drive.ask("c", after=1)
    while drive.state("a") is State.READY:
        drive.tick()  # until the gate shuts for b, whose turn is first
    orders: list[Order] = []
    while not orders:
        orders = drive.tick()
    (refused,) = [o for o in orders if isinstance(o, Refuse)]
    assert (refused.ticket, refused.code) == (c, Code.LOADING_TIMEOUT)
    assert refused.retry_after_s is not None
    assert refused.retry_after_s >= 1
    assert b in drive.machine.engines["b"].waiting


def test_the_queue_is_bounded(drive: Driver) -> None:
    drive.machine.bounds.max_waiting = 3
    for _ in range(3):
        drive.ask("a")
    _, (refusal,) = drive.ask("b")
    assert isinstance(refusal, Refuse)
    assert refusal.code is Code.QUEUE_FULL
    assert refusal.code.status == 429


def test_an_engine_that_cannot_start_refuses_with_its_last_words_and_backs_off(drive: Driver) -> None:
    first, _ = drive.ask("a")
    (refusal,) = drive(Failed("a", "exit 1: CUDA out of memory"), after=3)
    assert refusal == Refuse(first, Code.FAILED, "exit 1: CUDA out of memory", 5.0)
    _, (again,) = drive.ask("a", after=1)
    assert isinstance(again, Refuse)
    assert again.retry_after_s == 4.0
    assert drive.ask("a", after=4)[1] == [Start("a")]
    drive(Failed("a", "again"))
    assert drive.machine.engines["a"].health.failed_until == drive.now + 10


def test_an_engine_killed_from_outside_while_starting_is_started_once_more(drive: Driver) -> None:
    ticket, _ = drive.ask("a")
    assert drive(Failed("a", "killed by signal 9", retryable=True)) == [Start("a")]
    (refusal,) = drive(Failed("a", "killed by signal 9", retryable=True))
    assert isinstance(refusal, Refuse)
    assert refusal.ticket == ticket


def test_a_failed_model_does_not_hold_up_the_others(drive: Driver) -> None:
    drive.ask("a")
    other, _ = drive.ask("b")
    orders = drive(Failed("a", "broken"))
    assert orders[-1] == Start("b")
    assert drive.ready("b") == [Grant(other)]


def test_a_crashed_engine_is_cleaned_up_and_started_again_for_the_next_request(drive: Driver) -> None:
    holder, _ = drive.ask("a")
    drive.ready("a")
    orders = drive(Exited("a", "signal 9"))
    assert [type(o) for o in orders] == [Alarm, Stop]
    waiter, orders = drive.ask("a")
    assert orders == []
    assert drive(Stopped("a")) == [Start("a")]
    assert drive(Gone(holder)) == []
    assert drive.ready("a") == [Grant(waiter)]


def test_giving_back_twice_is_harmless(drive: Driver) -> None:
    ticket, _ = drive.ask("a")
    drive.ready("a")
    drive(Gone(ticket))
    assert drive(Gone(ticket)) == []
    assert drive(Gone(Ticket(99))) == []


def test_a_drain_that_does_not_end_is_cut_at_its_deadline_with_an_alarm() -> None:
    drive = Driver(max_wait_s=10, drain_timeout_s=100)
    drive.ask("a")
    drive.ready("a")
    drive.ask("b")
    drive.tick()
    assert drive.state("a") is State.DRAINING
    orders = drive.tick()
    assert [type(o) for o in orders] == [Alarm, Stop]
    assert isinstance(orders[1], Stop)
    assert orders[1].force


def test_only_the_resident_is_granted_to_a_request_that_may_not_switch(drive: Driver) -> None:
    _, (refusal,) = drive.ask("a", may_switch=False)
    assert isinstance(refusal, Refuse)
    assert refusal.code is Code.WOULD_SWITCH
    assert drive.state("a") is State.STOPPED
    drive.bring("a")
    ticket, orders = drive.ask("a", may_switch=False)
    assert orders == [Grant(ticket)]


def test_an_unknown_model_is_refused(drive: Driver) -> None:
    _, (refusal,) = drive.ask("nope")
    assert isinstance(refusal, Refuse)
    assert refusal.code is Code.UNKNOWN


def test_a_switch_shuts_the_gate_at_once_and_leaves_the_model_on_its_own(drive: Driver) -> None:
    holder, _ = drive.ask("a")
    drive.ready("a")
    assert drive(SwitchCommanded(Ticket(50), "b")) == [Prepare("b")]
    assert drive.state("a") is State.DRAINING
    drive(Gone(holder))
    assert drive(Stopped("a")) == [Start("b")]
    assert Grant(Ticket(50)) in drive.ready("b")
    assert drive.state("b") is State.READY


def test_a_switch_takes_the_back_off_away(drive: Driver) -> None:
    drive.ask("a")
    drive(Failed("a", "broken"))
    assert drive(SwitchCommanded(Ticket(50), "a")) == [Start("a")]


def test_unload_waits_for_the_drain_and_force_does_not(drive: Driver) -> None:
    holder, _ = drive.ask("a")
    drive.ready("a")
    assert drive(UnloadCommanded(Ticket(50), "a")) == []
    (stop,) = drive(UnloadCommanded(Ticket(51), "a", force=True))
    assert isinstance(stop, Stop)
    assert stop.force
    assert set(drive(Stopped("a"))) == {Grant(Ticket(50)), Grant(Ticket(51))}
    assert drive(Gone(holder)) == []


def test_unloading_what_is_not_loaded_is_done_at_once(drive: Driver) -> None:
    assert drive(UnloadCommanded(Ticket(50), None)) == [Grant(Ticket(50))]


def test_an_unload_called_off_reopens_the_gate(drive: Driver) -> None:
    drive.ask("a")
    drive.ready("a")
    drive(UnloadCommanded(Ticket(50), "a"))
    waiter, _ = drive.ask("a")
    assert drive(Gone(Ticket(50))) == [Grant(waiter)]


def test_shutdown_refuses_who_waits_drains_and_ends(drive: Driver) -> None:
    holder, _ = drive.ask("a")
    drive.ready("a")
    waiter, _ = drive.ask("b")
    orders = drive(ShutdownCommanded(Ticket(50)))
    assert [(o.ticket, o.code) for o in orders if isinstance(o, Refuse)] == [(waiter, Code.SHUTTING_DOWN)]
    assert drive.state("a") is State.DRAINING
    _, (refusal,) = drive.ask("a")
    assert isinstance(refusal, Refuse)
    (stop,) = drive(Gone(holder))
    assert isinstance(stop, Stop)
    assert drive(Stopped("a")) == [Grant(Ticket(50))]


def test_a_second_shutdown_with_force_hurries_an_orderly_stop(drive: Driver) -> None:
    drive.bring("a")
    drive(ShutdownCommanded(Ticket(50)))
    assert drive(ShutdownCommanded(Ticket(51), force=True)) == [Stop("a", True, "forced")]
    assert drive(Stopped("a")) == [Grant(Ticket(50)), Grant(Ticket(51))]


def test_an_adopted_engine_waits_for_its_lease_holders_before_anything_is_switched(drive: Driver) -> None:
    drive(Adopted("a", 4711))
    _, orders = drive.ask("b")
    assert orders == []
    drive(Held(Ticket(60), "a"))
    assert drive.tick() == [Prepare("b")]
    assert drive.state("a") is not State.STOPPING
    (stop,) = drive(Gone(Ticket(60)))
    assert isinstance(stop, Stop)


def test_an_illegal_fact_changes_nothing_and_tells_the_history(drive: Driver) -> None:
    drive.bring("a")
    with pytest.raises(IllegalMove, match=r"'a' cannot go from ready to stopped; before that: .*answers"):
        drive.machine.handle(Stopped("a"), 1.0)
    assert drive.state("a") is State.READY


def test_two_devices_do_not_wait_for_each_other() -> None:
    machine = Machine.of({"a": "gpu0", "b": "gpu1"}, ["gpu0", "gpu1"])
    assert machine.handle(Asked(Ticket(1), "a"), 0.0) == [Start("a")]
    assert machine.handle(Asked(Ticket(2), "b"), 0.0) == [Start("b")]


def test_status_has_the_public_shape(drive: Driver) -> None:
    holder, _ = drive.ask("a")
    drive.ready("a", after=2.0)
    drive(SwitchCommanded(Ticket(50), "b"), after=1.0)
    drive.ask("b")
    seen = status(drive.machine, drive.now + 1.5)
    assert seen["devices"] == [
        {
            "id": "gpu0",
            "resident": "a",
            "residents": ["a"],
            "switching": {
                "from": "a",
                "to": "b",
                "phase": "draining",
                "elapsed_s": 1.5,
                "estimate_s": None,
                "reason": "switch to b was ordered",
            },
            "decisions": dict.fromkeys(Kind, 0) | {"ordered": 1},
            "memory": {"capacity": None, "for_models": None, "others": 0},
        }
    ]
    assert seen["models"]["a"]["leases"] == 1
    assert seen["models"]["a"]["measured"]["start_s"] == 2.0
    assert seen["models"]["b"]["oldest_wait_s"] == 1.5
    assert seen["counters"]["granted"] == 1
    drive(Gone(holder))


def test_an_engine_with_slots_lets_in_as_many_as_it_answers_at_once_and_says_so_to_those_who_waited_too_long() -> None:
    models = {"a": Model("gpu0", Options(slots=2)), "b": Model("gpu0")}
    drive = Driver(Machine.of(models, ["gpu0"], Bounds(max_wait_s=30)))
    for _ in range(4):
        drive.ask("a")
    assert drive.ready("a") == [Grant(Ticket(1)), Grant(Ticket(2))]
    assert Grant(Ticket(3)) in drive(Gone(Ticket(1)), after=10)
    (refused,) = drive.tick()
    assert isinstance(refused, Refuse)
    assert refused.message.startswith("a answers 2 at once and had no slot for 30 s; now it would be about 10 s, ")
    assert refused.retry_after_s == 10.0  # an answer takes so long


def test_who_waited_when_the_engine_became_ready_is_served_before_it_leaves() -> None:
    models = {"a": Model("gpu0", Options(slots=1)), "b": Model("gpu0")}
    drive = Driver(Machine.of(models, ["gpu0"]))
    for _ in range(3):
        drive.ask("a")
    drive.ask("b")
    assert drive.ready("a", after=10) == [Grant(Ticket(1)), Prepare("b")]
    drive(SwitchCommanded(Ticket(90), "b"))
    assert drive.state("a") is State.DRAINING
    late, _ = drive.ask("a")
    assert drive(Gone(Ticket(1))) == [Grant(Ticket(2))]
    assert drive(Gone(Ticket(2))) == [Grant(Ticket(3))]
    orders = drive(Gone(Ticket(3)))
    assert Grant(late) not in orders
    assert drive.state("a") is State.STOPPING


def test_one_key_cannot_fill_the_queue_with_however_many_sessions() -> None:
    drive = Driver(max_waiting_per_key=2)
    for session in "xyz":
        _, orders = drive.ask("a", caller=f"key/{session}")
    (refused,) = orders
    assert isinstance(refused, Refuse)
    assert refused.code is Code.QUEUE_FULL
    assert drive.ask("a", caller="other/x")[1] == []


def test_the_reason_for_a_switch_is_not_that_for_which_somebody_stayed_who_is_gone() -> None:
    for ended in (Exited("a", "killed by signal 9"), UnloadCommanded(Ticket(90), "a", force=True)):
        drive = Driver()
        drive.ask("a")
        drive.ready("a", after=10)
        drive.ask("b")
        decided = drive.machine.devices["gpu0"].decisions
        assert "gate shuts in" in decided.reason
        drive(ended)
        assert Start("b") in drive(Stopped("a"))
        assert decided.reason == "b is wanted"


def test_what_was_decided_has_a_kind_once_something_was() -> None:
    drive = Driver()
    decided = drive.machine.devices["gpu0"].decisions
    drive.ask("a")
    assert decided.kind is None
    drive.ready("a", after=10)
    drive.ask("b")
    assert decided.kind is Kind.OPEN
    drive(SwitchCommanded(Ticket(90), "b"))
    assert (decided.kind, decided.reason) == (Kind.ORDERED, "switch to b was ordered")


def test_the_reason_for_a_switch_is_not_that_of_another_model(drive: Driver) -> None:
    drive.bring("a")
    drive.ask("b")
    decided = drive.machine.devices["gpu0"].decisions
    for_b = decided.reason
    drive(SwitchCommanded(Ticket(90), "c"))
    assert drive(Stopped("a")) == [Start("c")]
    assert decided.reason == "c is wanted"
    drive(Gone(Ticket(90)))
    drive(Stopped("c"))
    assert drive.state("b") is State.STARTING
    assert decided.reason == for_b
