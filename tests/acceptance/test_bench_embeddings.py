"""The benchmark of embeddings, with a real engine, in small."""

from __future__ import annotations

import pytest

from roundhouse.bench import embeddings

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(180)]


def test_texts_a_second_are_told_beside_the_engines_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embeddings, "BATCHES", {1: 8, 16: 64})
    said: list[str] = []
    figures = embeddings.run(said.append)
    for batch in (1, 16):
        assert all(figures[f"texts_per_s_{batch}"][arm] > 0 for arm in ("engine", "roundhouse"))
        assert 0 < figures[f"texts_per_s_{batch}_ratio"] < 2
    assert figures["texts_per_s_16"]["roundhouse"] > figures["texts_per_s_1"]["roundhouse"]
    assert said[-1].startswith("16 texts a request")
