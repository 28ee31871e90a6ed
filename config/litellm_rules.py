"""The LiteLLM settings that residency rests on: what must stand in the YAML, and why.

Each was found by experiment with the pinned LiteLLM; without it requests are lost, models are loaded for
nothing, or wrong answers come from the cache.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from roundhouse.config import surroundings
from roundhouse.config.faults import Fault, nearest
from roundhouse.config.schema import Launcher, ModelEntry

HOOK = "roundhouse.hooks.residency.hook"
ENGINE_KEY = "os.environ/ROUNDHOUSE_ENGINE_KEY"
PROVIDERS = ("hosted_vllm", "openai")

REQUIRED: dict[tuple[str, str], tuple[Any, str]] = {
    ("general_settings", "cancel_on_disconnect"): (True, "else the GPU works on for clients that have left"),
    ("general_settings", "disable_model_info_refresh"): (
        True,
        "else every engine is asked for its models every 300 s",
    ),
    ("general_settings", "health_check_skip_disabled_background_models"): (
        True,
        "else any key's GET /health runs a completion on every model",
    ),
    ("router_settings", "num_retries"): (0, "a retry asks for the model twice and hides the refusal"),
    ("router_settings", "disable_cooldowns"): (
        True,
        "else one 404 of an engine takes the model away for 5 s",
    ),
}
CACHE_REQUIRED = "enable_caching_on_provider_specific_optional_params"


def _section(document: Mapping[str, Any], name: str) -> dict[str, Any]:
    section = document.get(name)
    return section if isinstance(section, dict) else {}


def aliases(document: Mapping[str, Any]) -> dict[str, str]:
    """LiteLLM's own aliases: alias -> model name."""
    raw = _section(document, "router_settings").get("model_group_alias") or {}
    pairs = raw.items() if isinstance(raw, dict) else ()
    return {str(k): str(v["model"] if isinstance(v, dict) and "model" in v else v) for k, v in pairs}


def other_names(document: Mapping[str, Any], models: Mapping[str, ModelEntry]) -> dict[str, str]:
    """Entries that have no launcher because another's engine answers them: name -> model."""
    return {name: model for _, name, model, _ in _others(document, models)}


def _others(
    document: Mapping[str, Any], models: Mapping[str, ModelEntry]
) -> Iterable[tuple[str, str, str, dict[str, Any]]]:
    """Where the entry stands, its name, the model whose engine it leads to, and the entry."""
    for index, entry in enumerate(document.get("model_list") or ()):
        params = entry.get("litellm_params") if isinstance(entry, dict) else None
        if isinstance(params, dict) and isinstance(entry.get("model_name"), str):
            for model, it in models.items():
                leads = surroundings.leads_to(str(params.get("api_base") or ""), ("127.0.0.1", it.launcher.port))
                if leads and not (entry.get("model_info") or {}).get("launcher"):
                    yield f"model_list[{index}]", entry["model_name"], model, entry


def _check_other_names(document: Mapping[str, Any], models: Mapping[str, ModelEntry]) -> Iterable[Fault]:
    for at, _, model, entry in _others(document, models):
        yield from check_params(entry["litellm_params"], models[model].launcher, f"{at}.litellm_params")
        yield from check_info(entry.get("model_info") or {}, f"{at}.model_info")


def pass_through(document: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
    """The routes that the YAML adds: LiteLLM's ``pass_through_endpoints``."""
    raw = _section(document, "general_settings").get("pass_through_endpoints")
    return tuple(it for it in raw if isinstance(it, dict)) if isinstance(raw, list) else ()


def check(document: Mapping[str, Any], models: Mapping[str, ModelEntry]) -> list[Fault]:
    """Faults of the sections that all models share."""
    if not models:
        return []
    faults = []
    for (section, key), (value, why) in REQUIRED.items():
        if _section(document, section).get(key) != value:
            faults.append(Fault(f"{section}.{key}", f"must be {_yaml(value)}", f"Set it: {why}."))
    faults += _check_litellm_settings(_section(document, "litellm_settings"))
    if _section(document, "general_settings").get("master_key") != "os.environ/LITELLM_MASTER_KEY":
        remedy = "Write os.environ/LITELLM_MASTER_KEY; the key itself stands in .env."
        faults.append(Fault("general_settings.master_key", "must come from the environment", remedy))
    names = {str(e.get("model_name")) for e in document["model_list"] if isinstance(e, dict)}
    faults += _check_names(document, names)
    faults += _check_spelling([*names, *aliases(document)])
    faults += _check_pass_through(pass_through(document), models)
    faults += _check_circles(document)
    faults += _check_other_names(document, models)
    own = os.environ.get("ROUNDHOUSE_PORT") or "7000"
    for name, entry in models.items():
        if str(entry.launcher.port) == own:
            faults.append(Fault(f"port of {name}", f"{own} is the gateway's", "Take another, or set ROUNDHOUSE_PORT."))
    return faults


def _yaml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _check_litellm_settings(section: Mapping[str, Any]) -> list[Fault]:
    faults = []
    callbacks = section.get("callbacks")
    if HOOK not in (callbacks if isinstance(callbacks, list) else [callbacks]):
        remedy = f"Add {HOOK}: without it no engine is ever started."
        faults.append(Fault("litellm_settings.callbacks", "lacks the hook", remedy))
    if not section.get("cache"):
        return faults
    if section.get(CACHE_REQUIRED) is not True:
        remedy = "Set it: else requests that differ only in what vLLM alone knows get each other's cached answers."
        faults.append(Fault(f"litellm_settings.{CACHE_REQUIRED}", "must be true", remedy))
    cache = _section(section, "cache_params")
    timeout = cache.get("socket_timeout")
    if not isinstance(timeout, int | float) or timeout > 1:
        remedy = "Set 0.3: with the default of 5 s a Redis that hangs stalls requests for 5 to 15 s."
        faults.append(Fault("litellm_settings.cache_params.socket_timeout", "must be at most 1", remedy))
    kinds = cache.get("supported_call_types")
    if kinds is None or "atext_completion" in kinds:
        remedy = "List the call types without atext_completion: LiteLLM replays its cached streams as chat chunks."
        faults.append(Fault("litellm_settings.cache_params.supported_call_types", "has atext_completion", remedy))
    return faults


def _check_names(document: Mapping[str, Any], names: set[str]) -> list[Fault]:
    faults = []
    for alias, target in aliases(document).items():
        if target not in names:
            key = f"router_settings.model_group_alias.{alias}"
            faults.append(Fault(key, f"{target!r} is not a model of model_list", nearest(target, names)))
    known = names | aliases(document).keys()
    for section in ("litellm_settings", "router_settings"):
        for pair in _section(document, section).get("fallbacks") or ():
            for source, targets in pair.items() if isinstance(pair, dict) else ():
                for target in (source, *targets):
                    if target not in known and target != "*":
                        wrong = f"{target!r} is not a model of model_list"
                        faults.append(Fault(f"{section}.fallbacks", wrong, nearest(target, known)))
    return faults


def _check_spelling(names: Iterable[str]) -> Iterable[Fault]:
    """LiteLLM takes a comma for the end of a name."""
    for name in names:
        if "," in name:
            remedy = "Take another: LiteLLM cannot answer by a name with a comma."
            yield Fault("model_name", f"{name!r} cannot be asked for", remedy)


def _check_pass_through(routes: Iterable[Mapping[str, Any]], models: Mapping[str, ModelEntry]) -> Iterable[Fault]:
    bases = {entry.api_base.removesuffix("/v1") for entry in models.values()}
    for index, route in enumerate(routes):
        if any(str(route.get("target", "")).startswith(base) for base in bases):
            key = f"general_settings.pass_through_endpoints[{index}].target"
            yield Fault(key, "is an engine of ours", "Remove it: such requests would bypass residency.")


def _check_circles(document: Mapping[str, Any]) -> Iterable[Fault]:
    """What would have the gateway call itself."""
    remedy = "Name the other server: a request would come back here, again and again."
    addresses = {
        f"model_list[{index}].litellm_params.api_base": entry["litellm_params"].get("api_base")
        for index, entry in enumerate(document["model_list"])
        if isinstance(entry, dict) and isinstance(entry.get("litellm_params"), dict)
    }
    for index, route in enumerate(pass_through(document)):
        addresses[f"general_settings.pass_through_endpoints[{index}].target"] = route.get("target")
    for key, value in addresses.items():
        text = str(value or "")
        if text.startswith("os.environ/"):
            text = os.environ.get(text.removeprefix("os.environ/"), "")
        if surroundings.leads_to(text, surroundings.address(os.environ)):
            yield Fault(key, f"{value!r} is this gateway", remedy)


def check_params(params: Mapping[str, Any], launcher: Launcher, at: str) -> list[Fault]:
    """Faults of one managed model's ``litellm_params``."""
    faults = []
    provider, _, served = str(params.get("model", "")).partition("/")
    if provider not in PROVIDERS or not served:
        remedy = "Write hosted_vllm/NAME (or openai/NAME)."
        faults.append(Fault(f"{at}.model", f"{params.get('model')!r} is not for a local engine", remedy))
    base = f"http://127.0.0.1:{launcher.port}/v1"
    if str(params.get("api_base", "")).rstrip("/") != base:
        wrong = f"{params.get('api_base')!r} is not where the launcher's engine listens"
        faults.append(Fault(f"{at}.api_base", wrong, f"Write {base}."))
    if params.get("api_key") != ENGINE_KEY:
        remedy = f"Write {ENGINE_KEY}: engines answer to nobody else."
        faults.append(Fault(f"{at}.api_key", "is not the engines' key", remedy))
    return faults


def check_info(info: Mapping[str, Any], at: str) -> list[Fault]:
    """Faults of one managed model's ``model_info``."""
    if info.get("disable_background_health_check") is True:
        return []
    remedy = "Set it: a health check must never load a model."
    return [Fault(f"{at}.disable_background_health_check", "must be true", remedy)]
