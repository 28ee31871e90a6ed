"""The ledger's arithmetic: what fits beside what, who makes room, on which rung."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roundhouse.footprint.need import GIB, Footprint
from roundhouse.residency.machine.ledger import SPARE, Holder, Leave, Ledger, level_for, pinned

CARD = Ledger(capacity=16 * GIB, reserve=GIB)


def need(awake: float, residual: float = 1.0, pinned: float = 8.0) -> Footprint:
    return Footprint(int(awake * GIB), int(residual * GIB), int(pinned * GIB))


def awake(model: str, gib: float, used: float = 0.0, level: int = 1, fixed: bool = False) -> Holder:
    return Holder(model, need(gib), True, used, level, fixed)


def asleep(model: str, residual: float = 1.0, used: float = 0.0) -> Holder:
    return Holder(model, need(10, residual), False, used)


def test_what_fits_beside_the_others_moves_nobody() -> None:
    assert CARD.room_for(need(6), [awake("a", 6), asleep("b")]) == []


def test_the_resident_goes_to_sleep_when_the_next_does_not_fit_beside_it() -> None:
    assert CARD.room_for(need(12), [awake("a", 12), asleep("b", used=5)]) == [Leave("a", 1)]


def test_the_least_recently_used_leaves_and_no_more_than_needed() -> None:
    holders = [awake("a", 4, used=3), awake("b", 4, used=1), awake("c", 4, used=2)]
    assert CARD.room_for(need(5), holders) == [Leave("b", 1)]
    assert CARD.room_for(need(8), holders) == [Leave("b", 1), Leave("c", 1)]


def test_one_that_turns_out_not_to_be_needed_stays() -> None:
    # The sleeper is older, but its place is too small, and the resident's alone is enough.
    assert CARD.room_for(need(12), [asleep("old", used=0), awake("a", 12, used=9)]) == [Leave("a", 1)]


def test_sleepers_are_stopped_for_a_model_that_needs_their_residuals() -> None:
    holders = [asleep("b", used=1), asleep("c", used=2), awake("a", 12, used=9)]
    assert CARD.room_for(need(12.5), holders) == [Leave("b", 0), Leave("a", 1)]
    assert CARD.room_for(need(15), holders) == [Leave("b", 0), Leave("c", 0), Leave("a", 0)]


def test_what_does_not_fit_even_alone_is_told_so() -> None:
    assert CARD.room_for(need(15.5), []) is None
    assert CARD.room_for(need(9), [awake("a", 8, fixed=True)]) is None


def test_what_others_use_counts_once_it_is_more_than_the_reserve() -> None:
    assert Ledger(16 * GIB, GIB, foreign=GIB // 2).ours == 15 * GIB
    assert Ledger(16 * GIB, GIB, foreign=6 * GIB).ours == 10 * GIB - SPARE
    assert Ledger(16 * GIB, GIB, foreign=6 * GIB).over([awake("a", 12)]) == 2 * GIB + SPARE
    assert Ledger(16 * GIB, GIB, foreign=17 * GIB).ours == 0


def test_an_engine_of_which_nothing_is_known_is_alone() -> None:
    assert CARD.room_for(None, [awake("a", 2), asleep("b")]) == [Leave("a", 0), Leave("b", 0)]
    unknown = Holder("u", None, True, 0.0, 1)
    assert CARD.room_for(need(2), [unknown]) == [Leave("u", 1)]


def test_on_a_device_of_which_nothing_is_known_one_engine_is_awake_and_sleepers_stay() -> None:
    nothing = Ledger()
    assert nothing.room_for(need(1), [awake("a", 1, level=0), asleep("b")]) == [Leave("a", 0)]
    assert nothing.room_for(None, [asleep("b")]) == []
    assert nothing.room_for(None, [awake("a", 1, fixed=True)]) is None
    assert nothing.over([awake("a", 99)]) == 0


def test_the_shallowest_rung_whose_ram_is_there() -> None:
    it = need(12, pinned=10)
    assert level_for((1, 2), it, others_pinned=0, budget=10 * GIB, costs={}) == 1
    assert level_for((1, 2), it, others_pinned=1, budget=10 * GIB, costs={}) == 2
    assert level_for((1,), it, others_pinned=1, budget=10 * GIB, costs={}) == 0
    assert level_for((1, 2), None, others_pinned=0, budget=10 * GIB, costs={}) == 2
    assert level_for((1, 2), it, others_pinned=0, budget=None, costs={}) == 1
    assert level_for((), it, others_pinned=0, budget=None, costs={}) == 0


def test_a_rung_that_was_measured_to_cost_more_than_another_is_not_taken() -> None:
    it = need(12)
    assert level_for((1, 2), it, 0, None, {1: 3.0, 0: 30.0}) == 1
    assert level_for((1, 2), it, 0, None, {1: 13.0, 2: 7.0, 0: 30.0}) == 2
    assert level_for((1, 2), it, 0, None, {1: 3.0, 0: 1.0}) == 0
    assert level_for((1, 2), it, 0, None, {0: 1.0}) == 1  # not measured yet: it is worth a try


def test_pinned_ram_adds_up_over_those_who_pin() -> None:
    assert pinned([need(1, pinned=2), None, need(1, pinned=3)]) == 5 * GIB


sizes = st.integers(0, 20).map(GIB.__mul__)
holders = st.lists(
    st.builds(
        lambda awake, residual, up, used, level, fixed: (min(awake, residual), awake, up, used, level, fixed),
        sizes, sizes, st.booleans(), st.integers(0, 5), st.sampled_from([0, 1, 2]), st.booleans(),
    ),
    max_size=6,
)  # fmt: skip


@given(sizes, st.integers(0, 5).map(GIB.__mul__), sizes, sizes, holders)
def test_whoever_leaves_there_is_room_then_and_without_any_of_them_there_is_not(
    capacity: int, reserve: int, foreign: int, wanted: int, drawn: list[tuple[int, int, bool, int, int, bool]]
) -> None:
    ledger = Ledger(capacity, reserve, foreign)
    them = [
        Holder(f"m{i}", Footprint(awake, residual), up, used, level, fixed)
        for i, (residual, awake, up, used, level, fixed) in enumerate(drawn)
    ]
    leaves = ledger.room_for(Footprint(wanted), them)
    ours = ledger.ours
    assert ours is not None

    def left(leaving: dict[str, int]) -> int:
        total = wanted
        for it in them:
            assert it.footprint is not None
            level = leaving.get(it.model)
            if level is None:
                total += it.footprint.awake if it.awake else it.footprint.residual
            elif level:
                total += it.footprint.residual
        return total

    everybody = {it.model: 0 for it in them if not it.fixed}
    if leaves is None:
        assert left(everybody) > ours
        return
    chosen = {leave.model: leave.level for leave in leaves}
    assert not any(it.fixed for it in them if it.model in chosen)
    assert left(chosen) <= ours
    for model in chosen:
        assert left({m: lv for m, lv in chosen.items() if m != model}) > ours


@pytest.mark.parametrize("level", [0, 1])
def test_a_holder_keeps_its_residual_only_asleep(level: int) -> None:
    (leave,) = CARD.room_for(need(14), [awake("a", 10, level=level)]) or ()
    assert leave == Leave("a", level)
