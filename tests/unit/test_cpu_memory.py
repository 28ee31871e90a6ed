"""Memory of the set-up without a GPU: the embedder stays beside a chat model, and chat models take turns."""

from __future__ import annotations

from pathlib import Path

from roundhouse.config.load import load_settings
from roundhouse.footprint.need import Footprint
from roundhouse.residency.machine.ledger import Holder, Ledger

CPU_YAML = Path(__file__).resolve().parents[2] / "config" / "presets" / "cpu.yaml"
SETTINGS = load_settings(CPU_YAML, elsewhere=True)
NEEDS = {name: Footprint.of_size(int(it.launcher.memory or 0)) for name, it in SETTINGS.models.items()}
EMBEDDER = "bge-small"


def ledger() -> Ledger:
    (device,) = SETTINGS.residency.devices
    assert device.memory is not None
    return Ledger(int(device.memory), device.kept_free)


def test_the_embedder_and_a_chat_model_stay_beside_each_other() -> None:
    for chat in NEEDS.keys() - {EMBEDDER}:
        assert ledger().room_for(NEEDS[EMBEDDER], [Holder(chat, NEEDS[chat], True, 1.0)]) == []
        assert ledger().room_for(NEEDS[chat], [Holder(EMBEDDER, NEEDS[EMBEDDER], True, 1.0)]) == []


def test_two_chat_models_are_never_awake_at_once_and_the_embedder_stays_when_they_change() -> None:
    chats = NEEDS.keys() - {EMBEDDER}
    for one in chats:
        for other in chats - {one}:
            holders = [
                Holder(EMBEDDER, NEEDS[EMBEDDER], True, 0.0),
                Holder(one, NEEDS[one], True, 1.0),
            ]
            leaving = ledger().room_for(NEEDS[other], holders)
            assert leaving is not None
            assert [it.model for it in leaving] == [one]
