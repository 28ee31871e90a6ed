"""The order of one model's queue: the stated bound holds whatever is asked."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from roundhouse.residency.machine.facts import Ticket
from roundhouse.residency.machine.fairness import FairQueue


def order(asked: list[tuple[str, float]]) -> list[int]:
    """In which order these requests (caller, weight), asked for at once, are let in."""
    queue, waiting = FairQueue(), dict.fromkeys(map(Ticket, range(len(asked))))
    for index, (caller, weight) in enumerate(asked):
        queue.add(Ticket(index), caller, weight)
    result = []
    while (ticket := queue.next(waiting)) is not None:
        del waiting[ticket]
        result.append(int(ticket))
    return result


def test_one_caller_is_served_in_the_order_in_which_it_asked() -> None:
    assert order([("a", 1.0)] * 5) == [0, 1, 2, 3, 4]


def test_five_hundred_requests_of_one_do_not_stand_before_the_single_one_of_another() -> None:
    assert order([("many", 1.0)] * 500 + [("one", 1.0)]).index(500) <= 1


def test_batch_work_gets_a_share_and_never_nothing() -> None:
    served = order([("batch", 0.25)] * 20 + [("normal", 1.0)] * 40)
    first = served[:25]
    assert sum(index < 20 for index in first) == 5


def test_who_has_left_is_skipped() -> None:
    queue = FairQueue()
    for index in range(3):
        queue.add(Ticket(index), "a", 1.0)
    assert queue.next({Ticket(2)}) == Ticket(2)
    assert queue.next({}) is None


weights = st.sampled_from([0.25, 1.0, 4.0])
steps = st.lists(st.one_of(st.tuples(st.sampled_from("abcd"), weights), st.none()), min_size=1, max_size=120)


@given(steps)
def test_nobody_waits_for_more_grants_to_another_caller_than_the_bound_says(
    steps: list[tuple[str, float] | None],
) -> None:
    """A request or a grant a step: of each request that waits, count the grants to every other caller."""
    queue = FairQueue()
    waiting: dict[Ticket, tuple[str, float, int]] = {}  # caller, weight, requests of its caller before it
    seen: dict[Ticket, dict[str, int]] = {}
    heaviest: dict[str, float] = {}
    for index, step in enumerate([*steps, *[None] * len(steps)]):
        if step is not None:
            caller, weight = step
            # A caller has one priority here: its key's.
            weight = heaviest.setdefault(caller, weight)
            before = sum(it[0] == caller for it in waiting.values())
            ticket = Ticket(index)
            waiting[ticket], seen[ticket] = (caller, weight, before), {}
            queue.add(ticket, caller, weight)
            continue
        granted = queue.next(waiting)
        if granted is None:
            continue
        whose = waiting.pop(granted)[0]
        for ticket, (caller, weight, before) in waiting.items():
            if caller != whose:
                counts = seen[ticket]
                counts[whose] = counts.get(whose, 0) + 1
                bound = (before + 1) * heaviest[whose] / weight + 1
                assert counts[whose] <= bound, f"{ticket} of {caller} waited for {counts[whose]} of {whose}"
