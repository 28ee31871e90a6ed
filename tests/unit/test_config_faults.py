"""Every kind of bad YAML: where it is, what is wrong, what to do; and all faults at once."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from roundhouse.config import litellm_rules, paths
from roundhouse.config.load import ConfigError, load_settings
from roundhouse.config.schema import VllmLauncher

GOOD = yaml.safe_load((Path(__file__).resolve().parents[2] / "litellm_config.yaml").read_text(encoding="utf-8"))

Change = Callable[[dict[str, Any]], None]


@pytest.fixture(autouse=True)
def default_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ROUNDHOUSE_PORT", raising=False)


def launcher(document: dict[str, Any], index: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = document["model_list"][index]["model_info"]["launcher"]
    return found


def faults_of(tmp_path: Path, document: Any) -> ConfigError:
    path = tmp_path / "bad.yaml"
    path.write_text(document if isinstance(document, str) else yaml.safe_dump(document), encoding="utf-8")
    with pytest.raises(ConfigError) as error:
        load_settings(path)
    assert str(path) in str(error.value)
    return error.value


@pytest.mark.parametrize(
    ("text", "key", "wrong"),
    [
        ("model_list: [\n  - {", "line 2, column 3", "is not valid YAML"),
        ("a: 1\nb: 2\na: 3\n", "line 3, column 1", "duplicate key 'a'"),
        ("", "file", "is empty"),
        ("- 1\n", "file", "is a list, not a mapping"),
        ("residency: 3\nmodel_list: []\n", "model_list", "is missing or empty"),
    ],
    ids=["syntax", "doubled key", "empty", "no mapping", "no models"],
)
def test_what_is_no_settings_file(tmp_path: Path, text: str, key: str, wrong: str) -> None:
    error = faults_of(tmp_path, text)
    assert any(f.key == key and wrong in f.wrong for f in error.faults), str(error)


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="ROUNDHOUSE_CONFIG"):
        load_settings(tmp_path / "none.yaml")


def change_port(d: dict[str, Any]) -> None:
    launcher(d)["port"] = 8001


CASES: dict[str, tuple[Change, str, str]] = {
    "unknown launcher key": (
        lambda d: launcher(d).update(prot=1),
        "model_list[0].model_info.launcher.prot",
        "Did you mean 'port'?",
    ),
    "unknown residency key": (
        lambda d: d["residency"].update(max_wait=1),
        "residency.max_wait",
        "Did you mean 'max_wait_s'?",
    ),
    "unknown kind": (
        lambda d: launcher(d).update(kind="vlm"),
        "model_list[0].model_info.launcher.kind",
        "Did you mean 'vllm'?",
    ),
    "no kind": (
        lambda d: launcher(d).pop("kind"),
        "model_list[0].model_info.launcher.kind",
        "Known are: command, vllm",
    ),
    "missing model": (
        lambda d: launcher(d).pop("model"),
        "model_list[0].model_info.launcher.model",
        "docs/configuration",
    ),
    "port out of range": (
        lambda d: launcher(d).update(port=99999),
        "model_list[0].model_info.launcher.port",
        "docs/configuration",
    ),
    "two on one port": (change_port, "model_list[1].model_info.launcher.port", "port of its own"),
    "api_base of another": (change_port, "model_list[0].litellm_params.api_base", "Write http://127.0.0.1:8001/v1."),
    "the gateway's port": (lambda d: launcher(d).update(port=7000), "port of qwen-vl-7b", "set ROUNDHOUSE_PORT"),
    "unknown device": (
        lambda d: launcher(d).update(device="gpu1"),
        "model_list[0].model_info.launcher.device",
        "Did you mean 'gpu0'?",
    ),
    "negative size": (
        lambda d: d["residency"].update(devices=[{"id": "gpu0", "memory": "-16GiB"}]),
        "residency.devices[0].memory",
        "docs/configuration",
    ),
    "a size that is none": (
        lambda d: launcher(d).update(memory="lots"),
        "model_list[0].model_info.launcher.memory",
        "docs/configuration",
    ),
    "negative RAM": (
        lambda d: d["residency"].update(ram_budget=-1),
        "residency.ram_budget",
        "docs/configuration",
    ),
    "more RAM than there is": (
        lambda d: d["residency"].update(ram_budget="900TiB"),
        "residency.ram_budget",
        "Leave it out for half of the RAM",
    ),
    "nothing left of a device": (
        lambda d: d["residency"].update(devices=[{"id": "gpu0", "memory": "1GiB", "reserve": "1GiB"}]),
        "residency.devices[0].reserve",
        "512MiB is the default",
    ),
    "unknown default": (
        lambda d: d["residency"].update(default="qwen-14"),
        "residency.default",
        "Did you mean 'qwen-14b'?",
    ),
    "unknown sleep level": (
        lambda d: launcher(d).update(sleep=3),
        "model_list[0].model_info.launcher.sleep",
        "docs/configuration",
    ),
    "no time to idle": (
        lambda d: launcher(d).update(idle_sleep_s=0),
        "model_list[0].model_info.launcher.idle_sleep_s",
        "docs/configuration",
    ),
    "doubled device": (
        lambda d: d["residency"].update(devices=[{"id": "x"}, {"id": "x"}]),
        "residency.devices",
        "id of its own",
    ),
    "two launchers for a name": (
        lambda d: d["model_list"][1].update(model_name="qwen-vl-7b"),
        "model_list[1].model_name",
        "another name",
    ),
    "secret in env": (
        lambda d: launcher(d).update(env={"HF_TOKEN": "hf_x"}),
        "model_list[0].model_info.launcher.env.HF_TOKEN",
        "${HF_TOKEN}",
    ),
    "secret in argv": (
        lambda d: launcher(d).update(args=["--api-key=${ROUNDHOUSE_ENGINE_KEY}"]),
        "model_list[0].model_info.launcher.args[0]",
        "launcher.env",
    ),
    "engine for the whole network": (
        lambda d: launcher(d).update(args=["--max-num-seqs=8", "--host=0.0.0.0"]),
        "model_list[0].model_info.launcher.args[1]",
        "engines listen on loopback",
    ),
    "foreign provider": (
        lambda d: d["model_list"][0]["litellm_params"].update(model="anthropic/x"),
        "model_list[0].litellm_params.model",
        "hosted_vllm/NAME",
    ),
    "another key": (
        lambda d: d["model_list"][0]["litellm_params"].update(api_key="none"),
        "model_list[0].litellm_params.api_key",
        "os.environ/ROUNDHOUSE_ENGINE_KEY",
    ),
    "health checks on": (
        lambda d: d["model_list"][0]["model_info"].pop("disable_background_health_check"),
        "model_list[0].model_info.disable_background_health_check",
        "never load a model",
    ),
    "no hook": (
        lambda d: d["litellm_settings"].update(callbacks=[]),
        "litellm_settings.callbacks",
        "no engine is ever started",
    ),
    "cache ignores parameters": (
        lambda d: d["litellm_settings"].pop(litellm_rules.CACHE_REQUIRED),
        f"litellm_settings.{litellm_rules.CACHE_REQUIRED}",
        "each other's cached answers",
    ),
    "slow cache": (
        lambda d: d["litellm_settings"]["cache_params"].pop("socket_timeout"),
        "litellm_settings.cache_params.socket_timeout",
        "Set 0.3",
    ),
    "text completions cached": (
        lambda d: d["litellm_settings"]["cache_params"]["supported_call_types"].append("atext_completion"),
        "litellm_settings.cache_params.supported_call_types",
        "without atext_completion",
    ),
    "literal master key": (
        lambda d: d["general_settings"].update(master_key="sk-1"),
        "general_settings.master_key",
        ".env",
    ),
    "alias of nothing": (
        lambda d: d["router_settings"]["model_group_alias"].update(x="qwen-14"),
        "router_settings.model_group_alias.x",
        "Did you mean 'qwen-14b'?",
    ),
    "fallback to nothing": (
        lambda d: d["router_settings"].update(fallbacks=[{"qwen-14b": ["cloud"]}]),
        "router_settings.fallbacks",
        "Did you mean 'code'?",
    ),
    "past the gate": (
        lambda d: d["general_settings"].update(
            pass_through_endpoints=[{"path": "/x", "target": "http://127.0.0.1:8000/v1"}]
        ),
        "general_settings.pass_through_endpoints[0].target",
        "bypass residency",
    ),
    "a model that is this gateway": (
        lambda d: d["model_list"].append(
            {"model_name": "x", "litellm_params": {"model": "openai/x", "api_base": "http://localhost:7000/v1"}}
        ),
        "model_list[3].litellm_params.api_base",
        "come back here",
    ),
    "another name of an engine that a health check would ask": (
        lambda d: d["model_list"].append(
            {"model_name": "x", "litellm_params": dict(d["model_list"][0]["litellm_params"])}
        ),
        "model_list[3].model_info.disable_background_health_check",
        "must never load a model",
    ),
    "a name that LiteLLM takes for two": (
        lambda d: d["router_settings"].update(model_group_alias={"a,b": d["model_list"][0]["model_name"]}),
        "model_name",
        "comma",
    ),
    "a pass-through to this gateway": (
        lambda d: d["general_settings"].update(
            pass_through_endpoints=[{"path": "/x", "target": "http://127.0.0.1:7000/x"}]
        ),
        "general_settings.pass_through_endpoints[0].target",
        "come back here",
    ),
}


@pytest.mark.parametrize("name", list(CASES))
def test_a_fault_is_named_with_its_place_and_a_remedy(tmp_path: Path, name: str) -> None:
    change, key, remedy = CASES[name]
    document = copy.deepcopy(GOOD)
    change(document)
    error = faults_of(tmp_path, document)
    assert any(f.key == key and remedy in f.remedy for f in error.faults), str(error)


@pytest.mark.parametrize(("section", "key"), list(litellm_rules.REQUIRED))
def test_every_setting_that_residency_rests_on_is_required(tmp_path: Path, section: str, key: str) -> None:
    document = copy.deepcopy(GOOD)
    del document[section][key]
    assert [f.key for f in faults_of(tmp_path, document).faults] == [f"{section}.{key}"]


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    document = copy.deepcopy(GOOD)
    launcher(document)["prot"] = 1
    launcher(document, 1)["kind"] = "x"
    document["residency"]["max_wait_s"] = -1
    del document["general_settings"]["cancel_on_disconnect"]
    error = faults_of(tmp_path, document)
    assert len(error.faults) == 4
    assert "has 4 faults" in str(error)


def test_a_model_without_launcher_is_not_ours(tmp_path: Path) -> None:
    document = copy.deepcopy(GOOD)
    document["model_list"].append({"model_name": "cloud", "litellm_params": {"model": "openai/gpt-4o-mini"}})
    path = tmp_path / "good.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    assert "cloud" not in load_settings(path).models


@pytest.mark.parametrize("written", ["off", '"off"'])
def test_off_is_off_though_yaml_reads_it_as_false(tmp_path: Path, written: str) -> None:
    path = tmp_path / "good.yaml"
    path.write_text(yaml.safe_dump(GOOD).replace("kind: vllm", f"kind: vllm\n      host: {written}"), encoding="utf-8")
    hosts = {e.launcher.host for e in load_settings(path).models.values() if e.launcher.kind == "vllm"}
    assert hosts == {"off"}


def test_each_fault_of_a_new_key_is_one_line(tmp_path: Path) -> None:
    document = copy.deepcopy(GOOD)
    launcher(document).update(sleep=3, memory="-1GiB", pinned="maybe", idle_stop_s="soon")
    document["residency"].update(default=7, ram_budget="-2GiB")
    error = faults_of(tmp_path, document)
    assert len(error.faults) == 6, str(error)
    assert len(str(error).splitlines()) == 7


def test_sleep_may_be_turned_off_with_yamls_own_word(tmp_path: Path) -> None:
    document = copy.deepcopy(GOOD)
    launcher(document)["sleep"] = False
    path = tmp_path / "good.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    it = load_settings(path).models["qwen-vl-7b"].launcher
    assert isinstance(it, VllmLauncher)
    assert it.sleep == "off"


def test_a_machine_elsewhere_may_have_more_ram(tmp_path: Path) -> None:
    document = copy.deepcopy(GOOD)
    document["residency"]["ram_budget"] = "900TiB"
    path = tmp_path / "big.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    assert load_settings(path, elsewhere=True).residency.ram_budget == 900 * 2**40


def test_vllm_on_a_second_card_is_refused_until_it_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It started on the first card, whatever the YAML said."""
    document = copy.deepcopy(GOOD)
    document["residency"]["devices"] = [{"id": "gpu0"}, {"id": "gpu1"}]
    launcher(document)["device"] = "gpu1"
    path = tmp_path / "two.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    assert load_settings(path).models["qwen-vl-7b"].device == "gpu1"  # the CPU's vLLM has no card to be wrong about
    monkeypatch.setattr(paths, "engines_are_on_a_card", lambda: True)
    (fault,) = faults_of(tmp_path, document).faults
    assert fault.key == "model_list[0].model_info.launcher.device"
    assert "would start on the first card" in fault.wrong
