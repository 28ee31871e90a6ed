"""The YAMLs, the docs and the schema say the same."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import jsonschema
import pytest
import yaml
from pydantic import BaseModel

from roundhouse.cli.main import COMMANDS
from roundhouse.config import litellm_rules, paths, schema_export
from roundhouse.config.load import load_settings, read_yaml
from roundhouse.config.schema import CommandLauncher, DeviceSettings, ResidencySettings, VllmLauncher

ROOT = Path(__file__).resolve().parents[2]
DOCS = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
PLAN = (ROOT / "docs" / "plan.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
YAMLS = [ROOT / "litellm_config.yaml", ROOT / "config" / "presets" / "cpu.yaml"]
PRESETS = [*YAMLS, *(path for path in (ROOT / "config" / "presets").glob("*.yaml") if path not in YAMLS)]


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.name)
def test_what_we_ship_has_no_faults_and_the_promised_aliases(path: Path) -> None:
    settings = load_settings(path)
    assert {"vision", "reasoning", "code"} <= settings.aliases.keys()


@pytest.mark.parametrize("profile", [it for it in paths.PROFILES if it != "auto"])
def test_every_profile_is_a_file_without_faults_that_the_docs_name(profile: paths.Profile) -> None:
    path = paths.default_config_file(profile)
    assert {"reasoning", "code"} <= load_settings(path).aliases.keys()
    assert f"`{profile}`" in DOCS


def test_every_preset_is_a_profile() -> None:
    assert {paths.default_config_file(it) for it in paths.PROFILES} == set(PRESETS)


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.name)
def test_what_we_ship_validates_by_the_schema(path: Path) -> None:
    jsonschema.validate(yaml.safe_load(path.read_text(encoding="utf-8")), schema_export.schema())


def test_the_schema_file_is_current() -> None:
    assert schema_export.FILE.read_text(encoding="utf-8") == schema_export.text()


def test_the_schema_refuses_unknown_keys_of_ours() -> None:
    document = yaml.safe_load(YAMLS[1].read_text(encoding="utf-8"))
    document["residency"]["max_wait"] = 3
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, schema_export.schema())


@pytest.mark.parametrize("model", [DeviceSettings, ResidencySettings, VllmLauncher, CommandLauncher])
def test_every_key_is_documented(model: type[BaseModel]) -> None:
    missing = [name for name in model.model_fields if f"| `{name}` |" not in DOCS]
    assert not missing


def test_every_required_setting_of_litellm_is_documented() -> None:
    missing = [f"{a}.{b}" for a, b in litellm_rules.REQUIRED if f"`{a}.{b}`" not in DOCS]
    assert not missing


def test_every_environment_variable_that_the_code_reads_is_documented() -> None:
    internal = {"ROUNDHOUSE_STACK", "ROUNDHOUSE_PYTHON", "ROUNDHOUSE_GATEWAY_ID"}
    code = "\n".join(p.read_text(encoding="utf-8") for p in ROOT.glob("[a-z]*/**/*.py") if "tests" not in p.parts)
    read = set(re.findall(r"\"(ROUNDHOUSE_[A-Z_]+)\"", code)) - internal
    assert not {name for name in read if name not in DOCS}


@pytest.mark.parametrize("block", re.findall(r"```yaml\n(.*?)```", DOCS, re.S))
def test_yaml_in_the_docs_is_yaml_that_the_schema_takes(block: str) -> None:
    document = {"model_list": [{"model_name": "x", "litellm_params": {"model": "y"}}], **yaml.safe_load(block)}
    jsonschema.validate(document, schema_export.schema())


def test_the_readme_names_the_commands_that_there_are() -> None:
    table = README.split("## Commands")[1].split("##")[0]
    named = set(re.findall(r"`(\w+)", table)) & COMMANDS.keys()
    assert named == COMMANDS.keys()


def test_links_lead_to_files() -> None:
    for folder, text in ((ROOT, README), (ROOT / "docs", DOCS), (ROOT / "docs", PLAN)):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
            assert (folder / target).exists(), target


def test_a_model_is_added_by_the_five_lines_of_the_docs(tmp_path: Path) -> None:
    (block,) = re.findall(r"### Add a model\n.*?```yaml\n(.*?)```", DOCS, re.S)
    head, *lines = block.splitlines()
    assert (head, len(lines)) == ("model_list:", 5)
    for base in YAMLS:
        text = base.read_text(encoding="utf-8").replace("\nmodel_list:\n", f"\n{block}")
        (tmp_path / "own.yaml").write_text(text, encoding="utf-8")
        settings = load_settings(tmp_path / "own.yaml")
        assert list(settings.models) == ["qwen-3b", *load_settings(base).models]


def test_python_in_the_readme_compiles() -> None:
    for block in re.findall(r"```python\n(.*?)```", README, re.S):
        compile(block, "README.md", "exec")


def test_the_home_is_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROUNDHOUSE_HOME", str(tmp_path / "h"))
    assert paths.run_dir().stat().st_mode & 0o777 == 0o700


def test_a_long_home_gets_a_short_socket_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROUNDHOUSE_HOME", str(tmp_path / ("h" * 100)))
    assert len(str(paths.control_socket())) <= paths.SOCKET_PATH_BYTES
    assert paths.control_socket() == paths.control_socket()


@pytest.mark.parametrize("port", ["0", "70000", "x"])
def test_a_bad_port_is_said(port: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROUNDHOUSE_PORT", port)
    with pytest.raises(ValueError, match="ROUNDHOUSE_PORT"):
        paths.port()


@pytest.mark.parametrize("workers", ["0", "-1", "x"])
def test_a_bad_number_of_workers_is_said(workers: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROUNDHOUSE_WORKERS", workers)
    with pytest.raises(ValueError, match="ROUNDHOUSE_WORKERS"):
        paths.workers()


@pytest.mark.parametrize(("cores", "gib", "workers"), [(2, 64, 1), (4, 4, 1), (4, 8, 2), (16, 64, 2)])
def test_there_are_as_many_workers_as_the_machine_has_room_for(
    cores: int, gib: int, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ROUNDHOUSE_WORKERS", raising=False)
    monkeypatch.setattr(paths.os, "sched_getaffinity", lambda _: range(cores))
    monkeypatch.setattr(paths, "virtual_memory", lambda: SimpleNamespace(total=gib * 2**30))
    assert paths.workers() == workers


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.name)
def test_prices_stand_where_litellm_reads_them_once(path: Path) -> None:
    """Under ``litellm_params`` it registers them anew at each request, and builds its map of all models anew."""
    for entry in read_yaml(path)["model_list"]:
        assert entry["model_info"]["input_cost_per_token"] == entry["model_info"]["output_cost_per_token"] == 0
        assert not [key for key in entry["litellm_params"] if "cost" in key]


PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES += [ROOT / "residency" / "DESIGN.md", ROOT / "launchers" / "vllm" / "HOST.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_leads_to_one(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    here = [link for link in links if "://" not in link]
    assert [link for link in here if not (page.parent / link).exists()] == []
