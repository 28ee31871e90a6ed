"""Random workloads from a seed: agents, strangers, mixtures, that nobody tuned for."""

from __future__ import annotations

import random

from roundhouse.bench.workload import Workload, parse

KINDS = ("agents", "mixed", "strangers")


def generate(seed: int) -> Workload:
    """The workload of ``seed``: 2 to 5 models, switches of 1 to 60 s, one of KINDS by turns."""
    rng = random.Random(f"workload {seed}")
    kind = KINDS[seed % 3]
    base = rng.choice([1, 3, 5, 10, 20, 40, 60])
    slots = rng.choice([64, 64, 64, 4, 8])
    names = "ABCDE"[: rng.randint(2, 5)]
    models = {n: {"switch_s": round(base * rng.choice([1, 1, 1, 0.5, 1.5]), 2), "slots": slots} for n in names}
    service = rng.choice([0.5, 2, 4, 10])
    agents = [] if kind == "strangers" else [_agent(rng, i, names, base, service) for i in range(rng.randint(1, 9))]
    arrivals = [] if kind == "agents" else _arrivals(rng, names, base, service, few=kind == "mixed")
    document = {"about": f"{kind}, seed {seed}", "models": models, "agents": agents, "arrivals": arrivals}
    return parse(document, f"{kind}-{seed}")


def _pause(rng: random.Random, law: str, mean: float) -> float:
    if law == "constant":
        return mean
    if law == "exponential":
        return round(rng.expovariate(1 / mean), 2) if mean else 0.0
    return round(mean * rng.lognormvariate(-0.72, 1.2), 2)  # heavy tail, of about the same mean


def _agent(rng: random.Random, index: int, names: str, base: float, service: float) -> dict[str, object]:
    law = rng.choice(["constant", "exponential", "lognormal"])
    mean = rng.choice([0.1, 1, 1, 3, 8, 20])
    habit = rng.choice(["one", "one", "one", "alternate", "random", "sessions"])
    home = rng.choice(names)
    steps = []
    for number in range(rng.randint(5, 25)):
        if habit == "alternate":
            home = names[number % 2]
        elif habit == "random" or (habit == "sessions" and rng.random() < 0.15):
            home = rng.choice(names)
        length = round(service * rng.choice([0.5, 1, 1, 2]), 2)
        steps.append({"model": home, "service_s": length, "think_s": _pause(rng, law, mean)})
    start = round(rng.uniform(0, 2 * base), 2) if rng.random() < 0.7 else 0.0
    return {"caller": f"agent{index}", "start_s": start, "steps": steps}


def _arrivals(rng: random.Random, names: str, base: float, service: float, few: bool) -> list[dict[str, object]]:
    until = rng.choice([300, 600])
    load = rng.choice([0.02, 0.05, 0.15]) if few else rng.choice([0.05, 0.15, 0.4])
    bursts = rng.random() < 0.25
    found: list[dict[str, object]] = []
    for name in names:
        t, rate = 0.0, load * rng.choice([0.3, 1, 1, 2])
        known = rng.choice([0, 0, 3, 8])  # callers that come again and again, or a new one every time
        while True:
            t += rng.expovariate(rate / (4 if bursts else 1))
            if t > until:
                break
            for _ in range(rng.randint(2, 6) if bursts else 1):
                count = len(found)
                caller = f"{name}{rng.randrange(known) if known else f'-{count}'}"
                length = round(service * rng.choice([0.5, 1, 1, 2]), 2)
                found.append({"t": round(t, 2), "model": name, "service_s": length, "caller": caller})
    return sorted(found, key=lambda a: float(str(a["t"])))
