"""The secrets in `.env`."""

from __future__ import annotations

from pathlib import Path

import pytest

from roundhouse.deploy.setup import env_file
from roundhouse.deploy.setup.errors import SetupError

ROOT = Path(__file__).resolve().parents[2]


def _values(path: Path) -> dict[str, str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def test_secrets_are_made_at_random_for_this_user_only(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    env_file.complete(first)
    env_file.complete(second)
    assert first.stat().st_mode & 0o777 == 0o600
    assert set(_values(first)) == set(env_file.MADE)
    assert _values(first)["LITELLM_MASTER_KEY"].startswith("sk-")
    assert all(len(value) >= 40 for value in _values(first).values())
    assert not set(_values(first).values()) & set(_values(second).values())


def test_secrets_that_are_there_are_never_changed(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    env_file.complete(path)
    before = path.read_bytes()
    env_file.complete(path)
    assert path.read_bytes() == before


def test_missing_secrets_are_added_below_what_the_user_wrote(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("# mine\nexport LITELLM_MASTER_KEY='sk-mine'\nROUNDHOUSE_PORT=7001")
    path.chmod(0o644)
    env_file.complete(path)
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# mine\nexport LITELLM_MASTER_KEY='sk-mine'\nROUNDHOUSE_PORT=7001\n")
    assert text.count("LITELLM_MASTER_KEY=") == 1
    assert env_file.missing(path) == []
    assert path.stat().st_mode & 0o777 == 0o600


def test_an_empty_secret_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("# mine\nREDIS_PASSWORD=\n")
    with pytest.raises(SetupError, match="line 2: REDIS_PASSWORD is empty"):
        env_file.missing(path)


def test_the_example_explains_every_secret_and_sets_none() -> None:
    lines = (ROOT / ".env.example").read_text(encoding="utf-8").splitlines()
    assert all(not line or line.startswith("#") for line in lines)
    for name in env_file.MADE:
        assert any(line.startswith(f"#{name}=") for line in lines), name
