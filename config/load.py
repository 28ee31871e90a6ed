"""From the YAML to settings, or to a list of everything that is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import yaml
from pydantic import ByteSize, TypeAdapter, ValidationError

from roundhouse.config import litellm_rules, paths
from roundhouse.config.faults import ConfigError, Fault, nearest
from roundhouse.config.schema import (
    BaseLauncher,
    CommandLauncher,
    DeviceSettings,
    Launcher,
    ModelEntry,
    ResidencySettings,
    Settings,
    VllmLauncher,
)

if TYPE_CHECKING:
    from yaml import SafeLoader as _Loader
else:  # ten times as fast where PyYAML has libyaml
    _Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

KINDS: dict[str, type[VllmLauncher] | type[CommandLauncher]] = {
    "vllm": VllmLauncher,
    "command": CommandLauncher,
}
SECRET_NAME = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD)$", re.IGNORECASE)

SET_FOR_VLLM = frozenset({"--host", "--port", "--model", "--served-model-name", "--api-key"})
"""vLLM takes the last of two: an engine would listen for the whole network, or where nobody looks for it."""


class _UniqueKeys(_Loader):
    """YAML as it is, but a duplicate key is an error: the second would silently win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str) and key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"duplicate key {key!r}", key_node.start_mark)
            seen.add(key) if isinstance(key, str) else None
        return super().construct_mapping(node, deep)


def load_settings(path: Path, *, elsewhere: bool = False) -> Settings:
    """Read and check the YAML at ``path``; ``elsewhere``: it is for another machine than this one.

    Raises:
        ConfigError: with every fault that could be found.
    """
    document = read_yaml(path)
    faults: list[Fault] = []
    residency = _residency(document.get("residency", {}), faults)
    models = _models(document, residency, faults)
    faults += _check_residency(residency, models, elsewhere)
    faults += litellm_rules.check(document, models)
    if faults:
        raise ConfigError(path, faults)
    return Settings(
        path=path,
        residency=residency,
        models=models,
        aliases=litellm_rules.aliases(document),
        other_names=litellm_rules.other_names(document, models),
        pass_through=litellm_rules.pass_through(document),
    )


def read_yaml(path: Path) -> dict[str, Any]:
    """The YAML's top-level mapping. Raises ConfigError where there is none."""

    def fail(wrong: str, remedy: str, key: str = "file") -> ConfigError:
        return ConfigError(path, [Fault(key, wrong, remedy)])

    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise fail(f"cannot be read ({error.strerror})", "Set ROUNDHOUSE_CONFIG to the YAML to use.") from error
    except UnicodeDecodeError as error:
        raise fail("is not UTF-8 text", "Save it as UTF-8.") from error
    try:
        document = yaml.load(text, _UniqueKeys)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "file"
        raise fail(f"is not valid YAML: {error.problem}", "Mend the line; check its indentation.", where) from error
    except yaml.YAMLError as error:
        raise fail(f"is not valid YAML: {error}", "Remove what is not text.") from error
    if document is None:
        raise fail("is empty", "Begin with a copy of litellm_config.yaml.")
    if not isinstance(document, dict):
        raise fail(f"is a {type(document).__name__}, not a mapping", "Begin with a copy of litellm_config.yaml.")
    return document


def _residency(raw: Any, faults: list[Fault]) -> ResidencySettings:
    if not isinstance(raw, dict):
        faults.append(Fault("residency", "is not a mapping", "Write its keys below it, indented."))
        return ResidencySettings()
    try:
        settings = ResidencySettings.model_validate(raw)
    except ValidationError as error:
        faults += _pydantic_faults(error, "residency", ResidencySettings)
        return ResidencySettings()
    ids = [device.id for device in settings.devices]
    for doubled in sorted({i for i in ids if ids.count(i) > 1}):
        faults.append(Fault("residency.devices", f"has {doubled!r} twice", "Give each device an id of its own."))
    return settings


def _check_residency(settings: ResidencySettings, models: Mapping[str, ModelEntry], elsewhere: bool) -> list[Fault]:
    """Faults of ``residency`` that its schema cannot see."""
    faults, default, budget = [], settings.default, settings.ram_budget
    if default is not None and models and default not in models:
        wrong = f"{default!r} is not a model with a launcher"
        faults.append(Fault("residency.default", wrong, nearest(default, models)))
    total = psutil.virtual_memory().total
    if budget is not None and budget > total and not elsewhere:
        wrong = f"{budget.human_readable()} is more than this machine's RAM, {ByteSize(total).human_readable()}"
        faults.append(Fault("residency.ram_budget", wrong, "Leave it out for half of the RAM, or set less."))
    for index, device in enumerate(settings.devices):
        if device.memory is not None and device.kept_free >= device.memory:
            key, wrong = f"residency.devices[{index}].reserve", "leaves nothing of the device's memory"
            faults.append(Fault(key, wrong, "Set less; 512MiB is the default."))
    return faults


def _models(document: dict[str, Any], residency: ResidencySettings, faults: list[Fault]) -> dict[str, ModelEntry]:
    entries = document.get("model_list")
    if not isinstance(entries, list) or not entries:
        faults.append(Fault("model_list", "is missing or empty", "List at least one model."))
        return {}
    models: dict[str, ModelEntry] = {}
    ports: dict[int, str] = {}
    for index, raw in enumerate(entries):
        at = f"model_list[{index}]"
        if not isinstance(raw, dict) or not isinstance(raw.get("model_name"), str):
            faults.append(Fault(f"{at}.model_name", "is missing", "Give the model a name."))
            continue
        launcher = _launcher(raw, at, faults)
        if launcher is None:
            continue
        name, where = raw["model_name"], f"{at}.model_info.launcher"
        if name in models:
            faults.append(
                Fault(f"{at}.model_name", f"{name!r} has a launcher already", "Use another name, or one entry.")
            )
            continue
        if launcher.port in ports:
            wrong = f"{launcher.port} is the port of {ports[launcher.port]!r} too"
            faults.append(Fault(f"{where}.port", wrong, "Give each engine a port of its own."))
        ports[launcher.port] = name
        models[name] = _entry(name, raw, launcher, residency.devices, at, faults)
    return models


def _launcher(raw: dict[str, Any], at: str, faults: list[Fault]) -> Launcher | None:
    info = raw.get("model_info") or {}
    spec = info.get("launcher") if isinstance(info, dict) else None
    where = f"{at}.model_info.launcher"
    if spec is None:
        return None
    if not isinstance(spec, dict):
        faults.append(Fault(where, "is not a mapping", "Write its keys below it, indented."))
        return None
    kind = spec.get("kind")
    if kind not in KINDS:
        wrong = "is missing" if kind is None else f"{kind!r} is not known"
        faults.append(Fault(f"{where}.kind", wrong, nearest(str(kind), KINDS)))
        return None
    try:
        launcher: Launcher = TypeAdapter(KINDS[kind]).validate_python(spec)
    except ValidationError as error:
        faults += _pydantic_faults(error, where, KINDS[kind])
        return None
    key, words = ("argv", launcher.argv) if isinstance(launcher, CommandLauncher) else ("args", launcher.args)
    for index, word in enumerate(words):
        if any(SECRET_NAME.search(name) for name in re.findall(r"\$\{(\w+)\}", word)):
            remedy = "Hand it over in launcher.env: every user of the machine can read a command line."
            faults.append(Fault(f"{where}.{key}[{index}]", f"{word!r} puts a secret into the command line", remedy))
        if launcher.kind == "vllm" and word.split("=")[0].replace("_", "-") in SET_FOR_VLLM:
            remedy = "Remove it: engines listen on loopback, on launcher.port, with the model's name and a key of ours."
            faults.append(Fault(f"{where}.args[{index}]", f"{word!r} is set by Roundhouse", remedy))
    for name, value in launcher.env.items():
        if SECRET_NAME.search(name) and value and not value.startswith("${"):
            remedy = f"Put it into .env and write ${{{name}}} here: every key can read it in /model/info."
            faults.append(Fault(f"{where}.env.{name}", "looks like a secret", remedy))
    return launcher


def _entry(
    name: str,
    raw: dict[str, Any],
    launcher: Launcher,
    devices: tuple[DeviceSettings, ...],
    at: str,
    faults: list[Fault],
) -> ModelEntry:
    params = raw.get("litellm_params")
    params = params if isinstance(params, dict) else {}
    faults += litellm_rules.check_params(params, launcher, f"{at}.litellm_params")
    faults += litellm_rules.check_info(raw["model_info"], f"{at}.model_info")
    ids = [device.id for device in devices]
    device = launcher.device or ids[0]
    if device not in ids:
        wrong = f"{device!r} is not one of residency.devices"
        faults.append(Fault(f"{at}.model_info.launcher.device", wrong, nearest(device, ids)))
    elif device != ids[0] and launcher.kind == "vllm" and paths.engines_are_on_a_card():
        wrong = f"{device!r} is not the first device, and vLLM would start on the first card all the same"
        remedy = "Leave it out: engines of vLLM on a second card do not work yet; a command may choose its card itself."
        faults.append(Fault(f"{at}.model_info.launcher.device", wrong, remedy))
    return ModelEntry(
        name=name,
        served_name=str(params.get("model", "")).split("/", 1)[-1],
        api_base=str(params.get("api_base", "")),
        device=device,
        launcher=launcher,
    )


def _pydantic_faults(error: ValidationError, at: str, model: type[BaseLauncher | ResidencySettings]) -> list[Fault]:
    """Pydantic's errors as faults; an unknown key gets the nearest known one."""
    faults = []
    for item in error.errors():
        key = at + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in item["loc"])
        if item["type"] == "extra_forbidden":
            known = model.model_fields if len(item["loc"]) == 1 else DeviceSettings.model_fields
            faults.append(Fault(key, "is not a key that Roundhouse knows", nearest(str(item["loc"][-1]), known)))
        elif item["type"] == "missing":
            faults.append(Fault(key, "is missing", "See docs/configuration.md."))
        else:
            wrong = f"is {item['input']!r}: {item['msg'][0].lower()}{item['msg'][1:]}"
            faults.append(Fault(key, wrong, "See docs/configuration.md."))
    return faults


__all__ = ["ConfigError", "Fault", "load_settings", "read_yaml"]
