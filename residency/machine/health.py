"""What has gone wrong with one model's engine, and how long it is spared for that. Pure."""

from __future__ import annotations

from dataclasses import dataclass

BACKOFF_FIRST_S = 5.0
BACKOFF_MAX_S = 300.0
"""After a failed start requests are refused for 5, 10, 20 ... at most 300 s: long enough not to hammer a
broken engine, short enough for a person who has mended it (``switch`` takes the back-off away at once)."""

SLEEPLESS_FIRST_S, SLEEPLESS_MAX_S = 600.0, 7200.0
"""After an engine failed to sleep or to wake its model is stopped instead for so long, doubled each time."""


@dataclass
class Health:
    """Failures in a row, the words of the last one, and until when (clock seconds) starts or sleeps are not tried."""

    failures: int = 0
    failed_until: float = 0.0
    failure: str = ""
    sleep_failures: int = 0
    sleepless_until: float = 0.0

    def fail(self, now: float, text: str) -> None:
        """Count a failed start and set the back-off."""
        self.failures += 1
        self.failure = text
        self.failed_until = now + min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2 ** (self.failures - 1))

    def forgive(self) -> None:
        """Forget failed starts."""
        self.failures, self.failure, self.failed_until = 0, "", 0.0

    def distrust(self, now: float, text: str) -> None:
        """It did not sleep or wake as it should: for a while it is stopped instead."""
        self.sleep_failures += 1
        self.failure = text
        self.sleepless_until = now + min(SLEEPLESS_MAX_S, SLEEPLESS_FIRST_S * 2 ** (self.sleep_failures - 1))

    def woke(self) -> None:
        """A wake went well: failures to sleep or to wake count anew."""
        self.sleep_failures = 0
