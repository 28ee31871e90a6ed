"""Each engine has files of its own, and one that an older version recorded is found again."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from roundhouse.launchers.process.birth import Birth
from roundhouse.launchers.process.file_names import log_name, stem
from roundhouse.launchers.process.records import Record, read_records

BORN = Birth("boot", 1)


def test_an_ordinary_name_stays_as_it_is() -> None:
    assert log_name("qwen2.5-vl_7b") == "engine-qwen2.5-vl_7b.log"


@given(st.text(alphabet="a/_:. 🚂", min_size=1), st.text(alphabet="a/_:. 🚂", min_size=1))
def test_two_names_never_share_a_file(one: str, other: str) -> None:
    assert (stem(one) == stem(other)) is (one == other)
    assert "/" not in stem(one)


def test_a_long_name_is_still_a_file(tmp_path: Path) -> None:
    (tmp_path / log_name("🚂/" * 300)).touch()


def test_a_record_of_an_older_version_is_read_and_replaced(tmp_path: Path) -> None:
    record = Record("acme/m", 1, BORN, "x", 1)
    record.write(tmp_path)
    (written,) = tmp_path.iterdir()
    written.rename(tmp_path / "acme_m.json")
    assert read_records(tmp_path) == [record]
    record.write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [written.name]


def test_a_record_leaves_that_of_a_model_with_a_similar_name(tmp_path: Path) -> None:
    slash, plain = Record("acme/m", 1, BORN, "x", 1), Record("acme_m", 2, BORN, "y", 2)
    plain.write(tmp_path)
    slash.write(tmp_path)
    slash.remove(tmp_path)
    assert read_records(tmp_path) == [plain]
