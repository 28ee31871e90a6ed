"""Which of LiteLLM's routes the gateway serves: a table. What does not stand in it is refused. Pure.

LiteLLM has some thousand routes. Many of them work on the operator's accounts at providers (files, batches, vector
stores, pass-through) or have LiteLLM fetch from anywhere (agents, tools); no model of the YAML answers there, and any
key may call some of them. So a route is served if it stands here, method and path as LiteLLM writes them.
`tests/integration/test_route_table.py` holds this against the table of the pinned LiteLLM: a new route has to be put
into `SERVED` or into `REFUSED`, by a person.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.routing import compile_path

ACTIVITY = "(|/aggregated|/aggregated/keys|/aggregated/model_top_keys|/aggregated/search|/export)"

SERVED: dict[str, str] = {
    "answers of a model of the YAML, by way of the gate": """
        POST (|/v1)/(chat/completions|completions|embeddings|rerank|moderations|responses)
        POST (|/v1)/(audio/speech|audio/transcriptions|images/edits|images/generations)
        POST /v1/messages /v2/rerank /openai/v1/responses /cursor/chat/completions
        POST /engines/{model:path}/(chat/completions|completions|embeddings)
        POST /openai/deployments/{model:path}/(chat/completions|completions|embeddings|images/edits|images/generations)
        POST (|/v1beta)/models/{model_name:path}:(generateContent|streamGenerateContent)
    """,
    "counting of tokens, and what else is known of a model without asking it": """
        POST /v1/messages/count_tokens (|/v1|/openai/v1)/responses/input_tokens /utils/token_counter
        POST (|/v1beta)/models/{model_name:path}:countTokens
        GET (|/v1)/models (|/v1)/models/{model_id} /cursor(|/v1)/models
        GET (|/v1|/v2)/model/info (|/v1)/model/deprecations /model_group/info /model/(settings|cost_map/source)
        GET /model/(metrics|metrics/exceptions|metrics/slow_responses|streaming_metrics) /provider/budgets
        GET /utils/(model_info|supported_openai_params)
    """,
    "health and settings, to look at": """
        GET / /robots.txt /health /health/(backlog|drain|history|latest|license|shared-status) /active/callbacks
        GET,OPTIONS /health/(liveliness|liveness|readiness)
        GET /health/readiness/details /router/(fields|settings)
        GET /cache/(ping|redis/info|settings)
        POST /cache/(delete|flushall)
        POST /api/event_logging/batch
    """,
    "keys and what they may": """
        GET /key/(aliases|info|list|spend/report)
        POST /key/(block|bulk_update|delete|generate|regenerate|service-account/generate|unblock|update) /v2/key/info
        POST /key/{key:path}/(regenerate|reset_spend)
        GET /budget/(list|settings) /management/v1/budgets
        POST /budget/(delete|info|new|update)
        GET,POST /v1/(access_group|unified_access_group)
        GET,PUT,DELETE /v1/(access_group|unified_access_group)/{access_group_id} /access_group/{access_group}/budget
        GET /access_group/list /access_group/{access_group}/info
        POST /access_group/new
        PUT /access_group/{access_group}/update
        DELETE /access_group/{access_group}/delete
    """,
    "people, teams and other owners of keys": f"""
        GET /(user|team|organization|customer|end_user)/daily/activity{ACTIVITY}
        GET /user/daily/activity/aggregated/cache_leakage_keys
        GET /user/(available_roles|available_users|filter/ui|info|list|spend/report) /v2/user/info
        POST /user/(bulk_update|delete|new|password/change|update) /management/v1/users/(bulk|bulk_delete)
        POST /session/logout /onboarding/claim_token /invitation/(delete|new|update)
        GET /onboarding/get_token /invitation/info
        GET /team/(available|filter/ui|info|list|metadata_schema|permissions_list|spend/by_user|spend/report)
        GET /v2/team/list /team/{{team_id}}/members/me
        POST /team/(block|bulk_member_add|delete|key/bulk_update|member_add|member_delete|member_update|new|unblock)
        POST /team/(model/add|model/delete|permissions_bulk_update|permissions_update|update)
        POST /team/{{team_id}}/(disable_logging|member/{{user_id}}/reset_budget|member/{{user_id}}/reset_spend)
        POST /management/v1/teams/{{team_id}}/members/(bulk_delete|bulk_update)
        PATCH /team/{{team_id}} /v2/organization/{{organization_id}} /organization/(member_update|update)
        GET /organization/(info|list|spend/report)
        POST /organization/(info|member_add|new)
        DELETE /organization/(delete|member_delete) /project/delete
        GET /project/(info|list)
        POST /project/(new|update)
        GET /(customer|end_user)/(info|list)
        POST /(customer|end_user)/(block|delete|new|unblock|update)
    """,
    "spend": f"""
        GET /spend/(capture_rate|keys|logs|logs/session/ui|logs/ui|logs/ui/{{request_id}}|logs/v2|tags|users)
        GET /management/v1/spend_logs/(end_users|users) /gateway/daily/activity /audit /audit/{{id}}
        GET /global/activity(|/cache_hits|/exceptions|/exceptions/deployment|/model) /global/all_end_users
        GET /global/spend(|/all_tag_names|/keys|/logs|/models|/provider|/report|/tags|/teams)
        POST /spend/calculate /cost/estimate /global/spend/(end_users|refresh|reset)
        GET /tag/daily/activity{ACTIVITY} /tag/(dau|distinct|list|mau|summary|user-agent/per-user-analytics|wau)
        POST /tag/(delete|info|new|update)
        GET /config/(block_requests_for_models_without_pricing|cost_discount_config|cost_margin_config)
        GET /cost_optimization/prompt_caching/requests
    """,
    "our own": """
        GET /residency /residency/(|status|metrics|events)
        POST /residency/(switch|unload)
    """,
}
"""Why -> lines of methods and paths; ``(a|b)`` stands for either, ``{name}`` and ``{name:path}`` are LiteLLM's."""

OF_UI: dict[str, str] = {
    "the admin UI: logging in, and what its pages ask for": """
        POST /login /v2/login /v3/login /v3/login/exchange
        GET /fallback/login (|/litellm)/.well-known/litellm-ui-config
        GET /sso/(callback|get/ui_settings|key/generate|readiness|saml/login|saml/metadata)
        POST /sso/saml/callback
        GET /get/(allowed_ips|config/callbacks|default_team_settings|internal_user_settings|sso_settings|ui_settings)
        GET /get/(ui_theme_settings|user_banner) /get_(favicon|image|logo_url) /config/(list|field/info) /settings
        PATCH /update/(default_team_settings|internal_user_settings|ui_settings|user_banner)
        GET /alerting/settings /callbacks/(configs|list) /email/event_settings
        GET /public/(autorouter_presets|complexity_router/fuse_presets|complexity_router/scorer_defaults|endpoints)
        GET /public/(litellm_blog_posts|litellm_model_cost_map|providers|providers/fields)
        GET /public/(model_hub|model_hub/info|v1/model_hub|v1/model_hub/{facet})
    """,
}
"""Served where there are virtual keys; without a database there is no admin UI."""

MOUNTED = ("/metrics",)
MOUNTED_OF_UI = ("/ui", "/_next", "/litellm-asset-prefix/_next")
LOOKING = frozenset(("GET", "HEAD"))
"""Folders of files, and Prometheus' text: everything below is served, with these methods."""

REFUSED: dict[str, str] = {
    "there are no files, batches, stored answers or other things that outlive a request": """
        (|/v1)/(files|batches|fine_tuning|containers|vector_stores|indexes|evals|assistants|threads|videos|skills)
        (|/v1)/(vector_store|memory|workflows|rag) (|/v1beta)/interactions /{provider}/v1/(files|batches)
        (|/v1|/openai/v1)/responses/(compact|{response_id}|{response_id}/cancel|{response_id}/input_items)
    """,
    "there are no sessions": "(|/v1|/openai/v1)/realtime /deepgram /vertex_ai/live",
    "there is no pass-through to providers": """
        /openai /openai_passthrough /anthropic /azure /azure_ai /azure_speech /bedrock /cohere /cursor /gemini /gigachat
        /mistral /milvus /nvidia_nim /openrouter /vertex-ai /vertex_ai /vllm /watsonx /assemblyai /eu.assemblyai /fal_ai
        /langfuse /tinyfish /typesafe /laya /bespoke /transcribe /comprehendmedical /backend-api /plugin-proxy
        /claude_code_gateway
    """,
    "no model here does that": """
        (|/v1)/(ocr|search|decisions|systemone) /queue /utils/transform_request
    """,
    "there are no agents, tools, guardrails, policies, prompts or plug-ins": """
        (|/v1|/v1beta)/agents /agent (|/v1)/a2a /mcp /{mcp_server_name}/(mcp|authorize|register|token)
        /toolset /mcp-rest /v1/mcp (|/v1)/tool /search_tools (|/v2)/guardrails /apply_guardrail /policies /policy
        /prompts /utils/(dotprompt_json_converter|test_policies_and_guardrails) /api/plugins /claude-code /compliance
        /authorize /token /register /callback /revoke /introspect /oauth /usage/ai /liteadmin /moyai
        /.well-known/(oauth-authorization-server|oauth-protected-resource|openid-configuration|jwks.json)
        /.well-known/(agent-skills|skills|litellm-cli-auth) /public/(agent_hub|agents|mcp_hub|skill_hub)
    """,
    "models, their credentials and LiteLLM's settings come from the YAML and .env": """
        /model/(new|update|delete|block|unblock|{model_id}/update) /model_group /model_hub /model-insights /credentials
        /fallback /auto_router /adaptive_router /config/(update|yaml|field/update|field/delete|callback)
        /config/pass_through_endpoint
        /config_overrides /cache/settings /coordination_redis /add/allowed_ip /delete/allowed_ip /upload/logo
        /update/(sso_settings|ui_theme_settings|mcp_semantic_filter_settings|mcp_tool_search_settings)
        /update/websearch_interception_settings /email/event_settings /reload /schedule /cost/predict-cache
        /get/(mcp_semantic_filter_settings|mcp_tool_search_settings|websearch_interception_settings)
        /config/(block_requests_for_models_without_pricing|cost_discount_config|cost_margin_config)
        /jwt/key/mapping /scim /sso/(cli|debug)
    """,
    "nothing is sent to other hosts to try them, or to tell them something": """
        /health/(services|test_connection) /key/health /team/{team_id:path}/callback /cloudzero /vantage
        /get/latest_release_info (|/v1)/(lens|traces|logs) /v1/rust_control_plane
    """,
    "it is for LiteLLM's developers": """
        /debug /memory-usage-in-mem-cache /memory-usage-in-mem-cache-items /otel-spans /lazy /routes /test /swagger
        /docs /redoc /openapi.json
    """,
}
"""Why not -> routes, each with everything below it. What is served all the same stands in `SERVED`."""


@dataclass(frozen=True)
class Decision:
    """What becomes of a request. ``path``: what LiteLLM is asked for; ``None``: nothing, and ``why`` says why not.

    ``methods`` are those of the path where the path is served, but not so.
    """

    path: str | None
    why: str = ""
    methods: frozenset[str] = frozenset()


class Routes:
    """The table, made ready to be asked, with (``keys``) or without the admin UI's part of it.

    ``extra``: the routes that the YAML adds, as they stand there. None of them opens what is refused by decision.
    """

    def __init__(self, *, keys: bool, extra: Iterable[Mapping[str, Any]] = ()) -> None:
        plain: dict[str, set[str]] = {}
        patterns: dict[str, set[str]] = {}
        for method, path in served(keys=keys):
            (patterns if "{" in path else plain).setdefault(path, set()).add(method)
        self._plain = {path: frozenset(methods) for path, methods in plain.items()}
        self._patterns = [(compile_path(path)[0], frozenset(methods)) for path, methods in patterns.items()]
        self._mounts = MOUNTED + (MOUNTED_OF_UI if keys else ())
        self._refused = [(_below(path), why) for why, path in refused()]
        self._extra = [(_extra_pattern(it), _extra_methods(it)) for it in extra if isinstance(it.get("path"), str)]

    def decide(self, method: str, path: str) -> Decision:
        """What becomes of a request for ``path``, decoded as the server gives it."""
        methods = self._methods(path)
        if not methods and path.endswith("/") and (methods := self._methods(path[:-1])):
            path = path[:-1]  # LiteLLM would redirect; and with the slash some of its catch-alls match
        if method in methods:
            return Decision(path)
        if methods:
            return Decision(None, f"its methods are {', '.join(sorted(methods))}", methods)
        why = next((why for pattern, why in self._refused if pattern.match(path)), "")
        if why:
            return Decision(None, why)
        if any(pattern.fullmatch(path) and method in methods for pattern, methods in self._extra):
            return Decision(path)
        return Decision(None, "there is no such route")

    def _methods(self, path: str) -> frozenset[str]:
        """The methods with which ``path`` is served."""
        if found := self._plain.get(path):
            return found
        if any(path == mount or path.startswith(f"{mount}/") for mount in self._mounts):
            return LOOKING
        return frozenset().union(*(methods for pattern, methods in self._patterns if pattern.match(path)))


def served(*, keys: bool) -> Iterator[tuple[str, str]]:
    """Every method and path that is served, but for what is below `MOUNTED`."""
    for text in (SERVED | OF_UI if keys else SERVED).values():
        for line in text.strip().splitlines():
            methods, *paths = line.split()
            for method, path in itertools.product(methods.split(","), paths):
                yield from ((method, each) for each in _expanded(path))


def refused() -> Iterator[tuple[str, str]]:
    """Why not, and the route, of everything that is refused by decision."""
    for why, text in REFUSED.items():
        for path in text.split():
            yield from ((why, each) for each in _expanded(path))


def _expanded(path: str) -> Iterator[str]:
    """``a(b|c)d`` as ``abd`` and ``acd``."""
    parts = [part.strip("()").split("|") for part in re.split(r"(\([^)]*\))", path)]
    return ("".join(choice) for choice in itertools.product(*parts))


def _below(path: str) -> re.Pattern[str]:
    """What matches ``path`` and everything below it."""
    return re.compile(compile_path(path)[0].pattern.removesuffix("$") + "(/|$)")


def _extra_pattern(route: Mapping[str, Any]) -> re.Pattern[str]:
    path = re.escape("/" + route["path"].strip("/"))
    return re.compile(path + ("(/.*)?" if route.get("include_subpath") else ""))


def _extra_methods(route: Mapping[str, Any]) -> frozenset[str]:
    return frozenset(route.get("methods") or ("GET", "POST", "PUT", "DELETE", "PATCH"))
