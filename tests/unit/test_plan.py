"""``roundhouse plan``: what fits beside what, what to change, and how it is said."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from roundhouse.cli import fit as check
from roundhouse.cli import plan as cli
from roundhouse.cli.errors import CliError
from roundhouse.cli.up import _choose
from roundhouse.config import paths
from roundhouse.config.load import load_settings
from roundhouse.footprint import card
from roundhouse.footprint.files import SHIPPED
from roundhouse.footprint.need import GIB, Footprint
from roundhouse.launchers.vllm.engine_host import HOST_BYTES_CPU, HOST_BYTES_CUDA
from roundhouse.plan import devices
from roundhouse.plan.fit import Candidate, Room, beside, rungs, together
from tests.support import models

CONFIGS: dict[str, dict[str, Any]] = json.loads(SHIPPED.read_text(encoding="utf-8"))
ORIGINAL = ("Qwen2.5-VL-7B-Instruct", "Qwen2.5-14B-Instruct", "Qwen2.5-Coder-7B-Instruct")
"""In 16 bits, at a share of 0.85 of 16 GB: a set-up that people have tried, and that cannot work."""

LOW = "--gpu-memory-utilization=0.1"

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """``roundhouse plan`` on a machine without a card, a hub and anything in the hub's cache."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(cli, "hub_reachable", lambda: False)
    monkeypatch.setattr(devices, "card_bytes", lambda number: None)
    monkeypatch.setattr(paths, "load_env_file", lambda: None)
    monkeypatch.delenv("ROUNDHOUSE_CONFIG", raising=False)

    def invoke(*arguments: str) -> Result:
        return CliRunner().invoke(cli.command, [*arguments, "--ram", "64GiB"], standalone_mode=True)

    return invoke


def code(result: Result) -> int:
    """The exit code that ``main`` makes of it."""
    return result.exception.code if isinstance(result.exception, CliError) else result.exit_code


def told(result: Result) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def folder(tmp_path: Path, name: str, kind: str) -> str:
    return str(
        models.write_qwen(tmp_path / f"{name}{'' if kind == 'bf16' else '-' + kind}", CONFIGS[f"Qwen/{name}"], kind)
    )


def changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[dict[str, Any]], None]) -> None:
    """The set-up for one card with a change."""
    document = yaml.safe_load(paths.default_config_file("rtx5080").read_text(encoding="utf-8"))
    change(document)
    (tmp_path / "changed.yaml").write_text(yaml.safe_dump(document))
    monkeypatch.setenv("ROUNDHOUSE_CONFIG", str(tmp_path / "changed.yaml"))


def launchers(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [it["model_info"]["launcher"] for it in document["model_list"]]


def in_16_bits(document: dict[str, Any]) -> None:
    for it, name in zip(launchers(document), ORIGINAL, strict=True):
        it["model"] = f"Qwen/{name}"
        it["args"] = ["--max-model-len=32768", "--gpu-memory-utilization=0.85"]


@pytest.mark.parametrize(("profile", "size"), [("rtx5080", "16GiB"), ("small", "8GiB"), ("int4-large", "24GiB")])
def test_each_set_up_fits_the_card_it_names(run: Run, profile: paths.Profile, size: str) -> None:
    result = run("--profile", profile, "--device", size, "--json")
    assert code(result) == 0, result.output
    plan = told(result)
    assert plan["combined"]["fits"] is True
    assert plan["combined"]["ram_needed_gib"] < 64
    for name, it in plan["models"].items():
        assert it["advice"] is None, name
        assert it["max_tokens"]["fp8"] is None or it["max_tokens"]["fp8"] >= it["context"]
    for name, it in plan["combined"]["awake"].items():
        can_sleep = {other for other, m in plan["models"].items() if m["sleep_level"] and other != name}
        assert set(it["asleep"]) == can_sleep
        assert it["free_gib"] >= 0
    settings = load_settings(paths.default_config_file(profile))
    assert any(size.removesuffix("iB")[:-1] in line for line in settings.path.read_text().splitlines()[:6])


def test_without_anything_it_tells_about_the_default_set_up(run: Run) -> None:
    plan = told(run("--json"))
    assert list(plan["models"]) == ["qwen-vl-7b", "qwen-14b", "qwen-coder-7b"]
    assert plan["device"]["memory_gib"] == 15.48
    assert "there is none here" in plan["device"]["origin"]
    note = " ".join(run().stdout.split())
    assert "no NVIDIA card, so 'up' takes config/presets/cpu.yaml here" in note
    assert "config/presets/cpu.yaml here" not in run("--device", "16GiB").stdout
    assert all(it["source"] == "shipped" and it["unknown"] for it in plan["models"].values())


def test_the_json_has_what_was_promised(run: Run) -> None:
    plan = told(run("--json", "--device", "16GiB"))
    assert {"device", "models", "combined"} <= plan.keys()
    keys = {"weights_gib", "kv_bytes_per_token", "max_tokens", "fits", "sleep_level", "advice"}
    assert all(keys <= it.keys() and {"fp16", "fp8"} == it["max_tokens"].keys() for it in plan["models"].values())
    text = plan["models"]["qwen-14b"]
    assert (text["kv_bytes_per_token"], text["fits"], text["sleep_level"]) == (196_608, True, 1)
    assert text["weights_gib"] == pytest.approx(9.30, rel=0.01)
    assert plan["models"]["qwen-coder-7b"]["sleep_level"] == 2  # half of the RAM does not hold a third


TOKENS_ALONE = {
    ("Qwen2.5-VL-7B-Instruct", "awq"): (116e3, 232e3),
    ("Qwen2.5-VL-7B-Instruct", "fp8"): (61e3, 122e3),
    ("Qwen2.5-14B-Instruct", "awq"): (20.5e3, 40.9e3),
    ("Qwen2.5-Coder-7B-Instruct", "int8"): (90e3, 179e3),
    ("Qwen2.5-Coder-7B-Instruct", "awq"): (147e3, 294e3),
}


@pytest.mark.parametrize("key", list(TOKENS_ALONE), ids="-".join)
def test_a_folder_alone_gets_the_tokens_that_were_computed_by_hand(
    run: Run, tmp_path: Path, key: tuple[str, str]
) -> None:
    result = run("--device", "16GiB", "--json", "--model", folder(tmp_path, *key))
    (it,) = told(result)["models"].values()
    assert code(result) == 0
    assert (it["max_tokens"]["fp16"], it["max_tokens"]["fp8"]) == pytest.approx(TOKENS_ALONE[key], rel=0.05)


def test_three_folders_get_the_tokens_that_two_sleepers_leave(run: Run, tmp_path: Path) -> None:
    args = [part for name in ORIGINAL for part in ("--model", folder(tmp_path, name, "awq"))]
    plan = told(run("--device", "16GiB", "--json", *args))
    found = [tuple(it["max_tokens"].values()) for it in plan["models"].values()]
    for tokens, expected in zip(found, ((98e3, 196e3), (15.2e3, 30.4e3), (129e3, 258e3)), strict=True):
        assert tokens == pytest.approx(expected, rel=0.05)
    assert [len(it["asleep"]) for it in plan["combined"]["awake"].values()] == [2, 2, 2]


@pytest.mark.parametrize("name", ORIGINAL)
def test_16_bits_do_not_fit_and_the_4_bit_build_is_named(run: Run, tmp_path: Path, name: str) -> None:
    result = run("--device", "16GiB", "--json", "--model", folder(tmp_path, name, "bf16"))
    (it,) = told(result)["models"].values()
    assert code(result) == 4
    assert it["fits"] is False
    assert f"{name}-AWQ (4-bit weights, " in it["advice"]


def test_the_original_set_up_is_refused_model_by_model(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed(tmp_path, monkeypatch, in_16_bits)
    result = run("--device", "16GiB")
    assert code(result) == 4
    said = " ".join(result.stdout.split())
    for model, name in zip(("qwen-vl-7b", "qwen-14b", "qwen-coder-7b"), ORIGINAL, strict=True):
        assert f"{model} does not fit: use Qwen/{name}-AWQ" in said


def test_the_smallest_change_comes_first(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def advice(*args: str) -> str:
        changed(tmp_path, monkeypatch, lambda d: launchers(d)[1].update(args=["--max-num-seqs=4", *args]))
        return str(told(run("--device", "16GiB", "--json"))["models"]["qwen-14b"]["advice"])

    assert advice("--max-model-len=24576") == "set --kv-cache-dtype=fp8"
    assert advice("--max-model-len=49152", "--kv-cache-dtype=fp8") == "set --max-model-len=40960"
    assert advice("--max-model-len=65536") == "set --kv-cache-dtype=fp8 --max-model-len=40960"
    assert advice("--max-model-len=8192", "--gpu-memory-utilization=0.97") == "set --gpu-memory-utilization=0.94"
    assert advice("--max-model-len=8192", "--kv-cache-memory-bytes=1G") == "set --kv-cache-memory-bytes=1600M"


def test_a_cache_is_advised_in_megabytes_that_hold_it(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def advice(*args: str) -> str:
        changed(tmp_path, monkeypatch, lambda d: launchers(d)[1].update(args=["--max-num-seqs=4", LOW, *args]))
        return str(told(run("--device", "16GiB", "--json"))["models"]["qwen-14b"]["advice"])

    # One block, 3 MiB, more than the tokens take.
    assert advice("--max-model-len=20480", "--kv-cache-memory-bytes=3840M") == "set --kv-cache-memory-bytes=3904M"
    # 4611 MiB are needed and 4648 are there: no whole step of 64 lies between them.
    assert advice("--max-model-len=24576", "--kv-cache-memory-bytes=8G") == "set --kv-cache-memory-bytes=4648M"


def test_a_model_that_needs_more_while_it_is_loaded_needs_a_card_with_nothing_else_on_it(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = run("--profile", "int4-large", "--device", "24GiB")
    assert "qwen-32b needs 22.44 GiB while its weights are loaded, 21.37 GiB afterwards." in result.stdout
    document = yaml.safe_load(paths.default_config_file("int4-large").read_text(encoding="utf-8"))
    document["residency"]["devices"][0]["reserve"] = "1GiB"
    (tmp_path / "desktop.yaml").write_text(yaml.safe_dump(document))
    monkeypatch.setenv("ROUNDHOUSE_CONFIG", str(tmp_path / "desktop.yaml"))
    result = run("--device", "24GiB", "--json")
    assert (code(result), told(result)["models"]["qwen-32b"]["fits"]) == (4, False)


def test_exact_pinning_lets_all_three_sleep_at_level_1(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed(tmp_path, monkeypatch, lambda d: d["residency"].update(exact_pinning=True))
    plan = told(run("--device", "16GiB", "--json"))
    assert [it["sleep_level"] for it in plan["models"].values()] == [1, 1, 1]
    assert plan["combined"]["pinned_gib"] == pytest.approx(21.9, abs=0.1)


def test_ram_is_planned_for_two_processes_an_engine_on_a_card_and_one_without(run: Run) -> None:
    on_card = told(run("--device", "16GiB", "--json"))["combined"]
    host = HOST_BYTES_CUDA / GIB
    assert on_card["ram_needed_gib"] - on_card["pinned_gib"] == pytest.approx(3 * 2.75 + host, abs=0.01)
    assert told(run("--profile", "cpu", "--json"))["combined"]["ram_needed_gib"] == pytest.approx(
        4 * 1.3 + HOST_BYTES_CPU / GIB, abs=0.01
    )
    big = told(run("--profile", "int4-large", "--device", "24GiB", "--json"))["combined"]
    assert big["ram_needed_gib"] == pytest.approx(2.75 + 1.3 + host, abs=0.01)


def test_a_card_that_does_not_answer_is_one_line_and_exit_code_1(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(number: int) -> int:
        raise card.CardError("the NVIDIA driver does not answer (Driver/library version mismatch): see 'nvidia-smi'")

    monkeypatch.setattr(devices, "card_bytes", silent)
    result = run()
    assert code(result) == 1
    assert "version mismatch): see 'nvidia-smi'; --device plans for a card without asking it" in str(result.exception)
    assert "\n" not in str(result.exception)
    assert code(run("--device", "16GiB")) == 0
    monkeypatch.setenv("ROUNDHOUSE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(check, "is_cpu", lambda _: False)
    with pytest.raises(CliError, match="does not answer") as error:
        check.require_fit(load_settings(paths.default_config_file("rtx5080")), "auto")
    assert error.value.code == 1


def test_what_no_quantisation_saves_is_split_between_card_and_ram(run: Run) -> None:
    (it,) = told(run("--device", "16GiB", "--json", "--model", "Qwen/Qwen2.5-72B-Instruct-AWQ"))["models"].values()
    assert "llama.cpp's server" in it["advice"]
    assert "26 of 80 layers on the card (-ngl 26), 33.2 GiB in RAM" in it["advice"]


def test_where_others_cannot_sleep_beside_it_the_arguments_are_named(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed(tmp_path, monkeypatch, lambda d: launchers(d)[2].update(args=["--max-num-seqs=8"]))
    plan = told(run("--device", "16GiB", "--json"))
    it = plan["models"]["qwen-coder-7b"]
    assert it["fits"] is True
    assert "no room for qwen-vl-7b, qwen-14b to stay asleep beside it" in it["advice"]
    assert "--kv-cache-memory-bytes=6912M --gpu-memory-utilization=0.10" in it["advice"]
    assert plan["combined"]["awake"]["qwen-coder-7b"]["stopped"] == ["qwen-vl-7b", "qwen-14b"]


def test_two_that_never_leave_must_fit_side_by_side(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pin(document: dict[str, Any]) -> None:
        for it in launchers(document)[:2]:
            it["pinned"] = True

    changed(tmp_path, monkeypatch, pin)
    result = run("--device", "16GiB", "--json")
    assert code(result) == 4
    assert told(result)["combined"]["fits"] is False
    assert code(run("--device", "48GiB", "--json")) == 0


def test_a_command_fits_by_what_the_yaml_says_and_is_unknown_else(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def as_command(memory: str | None) -> Callable[[dict[str, Any]], None]:
        command = {"kind": "command", "port": 8002, "argv": ["llama-server"], **({"memory": memory} if memory else {})}
        return lambda d: d["model_list"][2]["model_info"].update(launcher=command)

    for memory, fits, exit_code in (("14GiB", True, 0), ("15GiB", False, 4), (None, None, 0)):
        changed(tmp_path, monkeypatch, as_command(memory))
        result = run("--device", "16GiB", "--json")
        assert (told(result)["models"]["qwen-coder-7b"]["fits"], code(result)) == (fits, exit_code)
    assert "set launcher.memory" in run("--device", "16GiB").stdout


def test_what_cannot_be_read_is_said_and_the_others_are_planned(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed(tmp_path, monkeypatch, lambda d: launchers(d)[0].update(model="someone/new-model"))
    result = run("--device", "16GiB", "--json")
    plan = told(result)
    assert code(result) == 0
    assert plan["models"]["qwen-vl-7b"]["fits"] is None
    assert "someone/new-model is not on this machine" in plan["models"]["qwen-vl-7b"]["unknown"][0]
    assert plan["models"]["qwen-14b"]["fits"] is True


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--device", "-16GiB"], "'-16GiB' is no size: write it like 16GiB"),
        (["--device", "16"], "'16' is 16 bytes: write it like 16GiB"),
        (["--device", "big"], "'big' is no size"),
        (["--model", "/nowhere"], "/nowhere is no folder"),
        (["--model", "no such model"], "'no such model' is neither a folder nor a name on the model hub"),
        (["--profile", "rtx9"], "'rtx9' is not one of"),
    ],
)
def test_wrong_usage_is_exit_code_2_and_one_line(run: Run, arguments: list[str], words: str) -> None:
    result = run(*arguments)
    text = str(result.exception) if isinstance(result.exception, CliError) else result.output
    assert code(result) == 2
    assert words in text
    assert "Traceback" not in result.output


def test_the_table_says_it_in_words(run: Run) -> None:
    text = run("--device", "16GiB").stdout
    assert "gpu0: 15.48 GiB (what CUDA shows of a 16 GiB card), 0.50 GiB of it kept free for others" in text
    assert "With qwen-14b awake: qwen-coder-7b asleep at level 2, qwen-vl-7b asleep at level 1" in text
    assert max(len(line) for line in text.splitlines()) <= 120


def footprint(awake: int, residual: int = 1, pinned: int = 0) -> Footprint:
    return Footprint(awake * GIB, residual * GIB, pinned * GIB)


def test_ram_goes_to_the_biggest_sleepers_first() -> None:
    candidates = [Candidate(name, footprint(1, 1, pinned), (1, 2)) for name, pinned in (("a", 5), ("b", 9), ("c", 6))]
    assert rungs(candidates, 15 * GIB) == {"b": 1, "c": 1, "a": 2}
    assert rungs([Candidate("a", footprint(1, 1, 5), (1,))], 1) == {"a": None}
    assert rungs([Candidate("a", footprint(1, 1, 5))], 99 * GIB) == {"a": None}
    assert rungs([Candidate("a", footprint(1, 1, 5), (2,))], 99 * GIB) == {"a": 2}


def test_as_many_sleep_beside_it_as_fit() -> None:
    a, b, c = (Candidate(n, footprint(w, r), (1,)) for n, w, r in (("a", 8, 1), ("b", 3, 2), ("c", 2, 1)))
    room = Room(11 * GIB, GIB, 0)
    found = beside(a, [a, b, c], {"a": 1, "b": 1, "c": 1}, room)
    assert (found.asleep, found.stopped, found.free) == ({"c": 1}, ("b",), GIB)
    assert together([a, b, c], room) == [("a", "c"), ("b", "c")]


def test_ram_that_may_not_be_locked_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices.resource, "getrlimit", lambda _: (8 * 2**20, 8 * 2**20))
    note = devices.memlock_note(40 * GIB)
    assert note is not None
    assert "residency.ram_budget: 40.0 GiB is above what this user may lock, 0.01 GiB" in note
    assert "\n" not in note
    assert devices.memlock_note(None) is None
    monkeypatch.setattr(devices.resource, "getrlimit", lambda _: (-1, -1))
    assert devices.memlock_note(40 * GIB) is None


@pytest.fixture
def a_card_of_16_gb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROUNDHOUSE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(check, "is_cpu", lambda _: False)
    monkeypatch.setattr(devices, "card_bytes", lambda number: card.shown_bytes(16 * GIB))


@pytest.mark.usefixtures("a_card_of_16_gb")
def test_up_refuses_what_cannot_work_with_the_plans_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changed(tmp_path, monkeypatch, in_16_bits)
    settings = load_settings(tmp_path / "changed.yaml")
    with pytest.raises(CliError, match="this set-up cannot work") as error:
        check.require_fit(settings, "auto")
    assert error.value.code == 2
    for model, name in zip(settings.models, ORIGINAL, strict=True):
        assert f"{model} does not fit: use Qwen/{name}-AWQ" in str(error.value)
    check.require_fit(settings, "tiny")  # the stand-ins fit anywhere


@pytest.mark.usefixtures("a_card_of_16_gb")
def test_up_goes_on_where_the_plan_does_not_know(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    check.require_fit(load_settings(paths.default_config_file("rtx5080")), "auto")
    assert capsys.readouterr().err == ""
    changed(tmp_path, monkeypatch, lambda d: launchers(d)[0].update(model="someone/new-model"))
    check.require_fit(load_settings(tmp_path / "changed.yaml"), "auto")
    assert "plan: whether qwen-vl-7b fits cannot be told: someone/new-model" in capsys.readouterr().err


def test_up_asks_nothing_where_there_is_no_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROUNDHOUSE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(check, "is_cpu", lambda _: False)
    monkeypatch.setattr(devices, "card_bytes", lambda number: None)
    changed(tmp_path, monkeypatch, in_16_bits)
    check.require_fit(load_settings(tmp_path / "changed.yaml"), "auto")


@pytest.mark.parametrize("profile", paths.FOR_A_CARD)
def test_a_set_up_for_a_card_that_is_absent_is_refused(profile: paths.Profile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "has_nvidia_card", lambda: False)
    with pytest.raises(CliError, match=f"the set-up '{profile}' is for an NVIDIA card") as error:
        _choose(profile)
    assert error.value.code == 2
    assert "\n" not in str(error.value)


def test_the_docs_show_what_it_prints(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (paths.project_root() / "docs" / "plan.md").read_text(encoding="utf-8")
    good, refused = re.findall(r"```text\n(.*?)```", text, re.DOTALL)
    assert run("--device", "16GiB").stdout == good
    changed(tmp_path, monkeypatch, in_16_bits)
    printed = " ".join(run("--device", "16GiB").stdout.split())
    assert " ".join(refused.split()) in printed
