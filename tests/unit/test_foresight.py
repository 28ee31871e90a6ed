"""Models that come before they are asked for: when that pays, when not, and that it ends where guesses are wrong."""

from __future__ import annotations

import pytest

from roundhouse.bench.policies.ours import Ours
from roundhouse.bench.simulation import Simulation
from roundhouse.bench.switching import play
from roundhouse.bench.workload import Workload, parse
from roundhouse.residency.learned.foresight import OFF_S, Foresight, Next, guess
from roundhouse.residency.learned.haste import HOLD_S
from roundhouse.residency.machine.idle import QUIET_S
from roundhouse.residency.machine.policy import Kind

LONG_S = 68.0
"""A pause after which nobody minds that the model which was there has made way: longer than a minute."""

COSTS = {"embed": 10.0, "chat": 10.0}


def coming(model: str, in_s: float, chance: float = 1.0, caller: str = "rag") -> Next:
    return Next(caller, model, chance, in_s, in_s + 1.0)


def test_what_is_saved_is_no_more_than_the_switch_and_the_time_that_is_left() -> None:
    for in_s, saved in ((4.0, 4.0), (30.0, 10.0)):
        found = guess(COSTS, ["embed"], [coming("chat", in_s)], {})
        assert found is not None
        assert (found.model, found.gain_s, found.loss_s) == ("chat", saved, 0.0)
        assert "caller rag expected to ask for chat" in found.reason


def test_nothing_comes_for_a_caller_that_is_about_to_come_back_to_the_resident() -> None:
    assert guess(COSTS, ["chat"], [coming("chat", 4.0)], {}) is None


@pytest.mark.parametrize(
    "other", [coming("embed", 2.0, 0.5, "editor"), coming("embed", 0.0, 0.5, "newcomer")], ids=["known", "newcomer"]
)
def test_nothing_comes_while_somebody_else_may_come_back_to_the_resident(other: Next) -> None:
    assert guess(COSTS, ["embed"], [coming("chat", 8.0), other], {}) is None


def test_nothing_comes_where_many_ask_for_the_resident_out_of_the_blue() -> None:
    expected = [coming("chat", 8.0)]
    assert guess(COSTS, ["embed"], expected, {"embed": 0.5}) is None
    assert guess(COSTS, ["embed"], expected, {"embed": 0.001}) is not None


def test_it_turns_itself_off_where_it_was_wrong_too_often_and_tries_again_later() -> None:
    it = Foresight()
    now = 0.0
    while it.allowed(now):
        it.model = "chat"
        assert not it.allowed(now)  # one guess at a time
        it.asked("embed", now)
        now += 1.0
        assert now < 5.0, "wrong again and again, and still allowed"
    assert not it.allowed(now + OFF_S / 2)
    assert it.allowed(now + OFF_S)


def test_right_guesses_outweigh_a_wrong_one() -> None:
    it = Foresight()
    for model in ("chat", "chat", "embed", "chat", "chat", "embed", "chat"):
        it.model = "chat"
        it.asked(model, 0.0)
    assert it.allowed(0.0)


def test_no_model_leaves_for_a_foreseen_one_within_a_minute_of_its_last_request() -> None:
    assert foreseen(play(turns("AB", think_s=30.0), "ours")) == 0
    run = play(turns("AB", think_s=LONG_S), "ours")
    when, ends = {r.asked for r in run.requests}, [r.ended for r in run.requests if r.ended is not None]
    begun = [switch.began for switch in run.switches]
    ahead = [at for at in begun if not any(at - HOLD_S <= asked <= at for asked in when)]
    assert len(ahead) == foreseen(run) > 0
    assert all(at - max(end for end in ends if end <= at) >= QUIET_S for at in ahead)


def test_it_can_be_switched_off() -> None:
    def off(simulation: Simulation) -> Ours:
        router = Ours(simulation)
        router.machine.bounds.foresight = False
        return router

    run = Simulation(turns("AB", think_s=LONG_S), off)
    run.run()
    assert foreseen(run) == 0
    assert len(run.switches) == 24


def turns(
    models: str, think_s: float, switch_s: float = 3.0, others: list[dict[str, object]] | None = None
) -> Workload:
    """One agent that asks the models in turn, 24 times in all."""
    steps = [{"model": models[i % len(models)], "service_s": 4.0, "think_s": think_s} for i in range(24)]
    agents = [{"caller": "x", "start_s": 0, "steps": steps}]
    document = {"models": {m: {"switch_s": switch_s} for m in "ABC"}, "agents": agents, "arrivals": others or []}
    return parse(document, "turns")


def waits(run: Simulation) -> list[float]:
    return [r.started - r.asked for r in run.requests if r.started is not None]


def foreseen(run: Simulation) -> int:
    assert isinstance(run.router, Ours)
    return sum(device.decisions.counts[Kind.FORESIGHT] for device in run.router.machine.devices.values())


@pytest.mark.parametrize("models", ["AB", "ABC"])
def test_an_agent_that_goes_through_models_in_turn_finds_them_there(models: str) -> None:
    run = play(turns(models, think_s=LONG_S), "ours")
    assert len(waits(run)) == 24
    assert sum(waits(run)[8:]) == 0.0  # after two turns nothing has to be waited for any more
    switching = sum(waits(play(turns(models, think_s=LONG_S), "llama-swap")))
    assert sum(waits(run)) < 0.4 * switching


def test_an_agent_that_stays_with_its_model_is_not_disturbed() -> None:
    run = play(turns("A", think_s=LONG_S), "ours")
    assert foreseen(run) == 0
    assert len(run.switches) == 1


def test_a_start_that_was_foreseen_ends_at_once_when_another_model_is_asked_for() -> None:
    begun = play(turns("AB", think_s=LONG_S), "ours").switches[12].began
    others = [{"t": begun + 1.0, "model": "C", "service_s": 1.0, "caller": "somebody"}]
    run = play(turns("AB", think_s=LONG_S, others=others), "ours")
    (wait,) = [r.started - r.asked for r in run.requests if r.model == "C" and r.started is not None]
    assert begun not in [switch.began for switch in run.switches]  # it did not come to its end
    assert wait == pytest.approx(3.0)  # nothing but its own switch
