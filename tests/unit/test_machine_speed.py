"""The machine stays fast with a long queue: the cost of a fact does not grow with who waits."""

from __future__ import annotations

from time import perf_counter

from roundhouse.residency.facts import Asked, Fact, Gone, Ready, Stopped, Ticket
from roundhouse.residency.machine import Machine
from roundhouse.residency.track import Bounds

BOUND_US = 50.0
"""Microseconds a fact may cost on average; measured here: a fifth of it."""


def cost_us(waiting: int) -> float:
    """Average microseconds of a fact while ``waiting`` requests queue for three models, are served and leave."""
    machine = Machine.of({"a": "g", "b": "g", "c": "g"}, ["g"], Bounds(max_waiting=waiting))
    facts: list[Fact] = [Asked(Ticket(i), "abc"[i % 3]) for i in range(waiting)]
    facts += [Gone(Ticket(i)) for i in range(0, waiting, 10)]
    for index, model in enumerate("abc"):
        facts.append(Ready(model, 1))
        facts += [Gone(Ticket(i)) for i in range(waiting) if i % 3 == index]
        if model != "c":
            facts.append(Stopped(model))
    began = perf_counter()
    for moment, fact in enumerate(facts):
        machine.handle(fact, moment * 1e-4)
        machine.wake_at()
    return (perf_counter() - began) / len(facts) * 1e6


def test_ten_thousand_waiting_requests_cost_under_50_microseconds_a_fact() -> None:
    assert min(cost_us(10_000) for _ in range(3)) < BOUND_US


def test_no_step_is_quadratic() -> None:
    short = min(cost_us(2_000) for _ in range(3))
    long = min(cost_us(20_000) for _ in range(3))
    assert long < 3 * short
