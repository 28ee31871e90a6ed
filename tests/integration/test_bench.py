"""The benchmarks run, and what they promise is not lost unnoticed."""

from __future__ import annotations

import pytest

from roundhouse.bench import switch

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]


def test_our_own_share_of_a_switch_is_small() -> None:
    figures = switch.run(rounds=5)
    assert figures["rounds"] == 5
    assert figures["own_share_ms"]["median"] < 100, figures  # at most 50 on a quiet machine
