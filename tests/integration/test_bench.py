"""The benchmarks run and tell what they promise to tell."""

from __future__ import annotations

import pytest

from roundhouse.bench import switch

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

FAR_OFF_MS = 250.0
"""Ten times what our share of a switch was measured to be, for machines that do something else, too."""


def test_a_switch_costs_little_beside_the_engines_own_time_stopped_or_asleep() -> None:
    said: list[str] = []
    figures = switch.run(3, said.append)
    assert figures["own_share_ms"]["median"] < FAR_OFF_MS
    assert figures["warm"]["own_share_ms"]["median"] < FAR_OFF_MS
    assert figures["warm"]["switch_ms"]["median"] < figures["switch_ms"]["median"]
    assert figures["cold_ms"] > switch.START_S * 1e3
    assert len(said) == 6
