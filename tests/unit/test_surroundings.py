"""What a service gets of its caller's environment."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from roundhouse.config import surroundings
from roundhouse.config.surroundings import Service

FOREIGN = """
    OPENAI_API_KEY OPENAI_BASE_URL OPENAI_API_BASE OPENAI_ORGANIZATION ANTHROPIC_API_KEY ANTHROPIC_BASE_URL
    COHERE_API_KEY CO_API_KEY MISTRAL_API_KEY AZURE_API_KEY AZURE_API_BASE AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY
    AWS_PROFILE GOOGLE_APPLICATION_CREDENTIALS GEMINI_API_KEY VERTEXAI_PROJECT GROQ_API_KEY OPENROUTER_API_KEY
    LITELLM_MODE LITELLM_PROXY_API_BASE LITELLM_CORS_ORIGINS LITELLM_DISABLE_LAZY_ROUTES STORE_MODEL_IN_DB
    CONFIG_FILE_PATH SERVER_ROOT_PATH DISABLE_ADMIN_UI LANGFUSE_SECRET_KEY SLACK_WEBHOOK_URL SSLKEYLOGFILE
"""

NEEDED = """
    PATH HOME TMPDIR LANG LC_ALL TZ XDG_CACHE_HOME LD_LIBRARY_PATH HTTPS_PROXY no_proxy SSL_CERT_FILE
    REQUESTS_CA_BUNDLE ROUNDHOUSE_PORT ROUNDHOUSE_ENGINE_KEY LITELLM_MASTER_KEY LITELLM_SALT_KEY DATABASE_URL
"""

OF_ENGINES = """
    HF_TOKEN HF_HOME CUDA_VISIBLE_DEVICES CUDA_HOME NVIDIA_VISIBLE_DEVICES NCCL_P2P_DISABLE VLLM_LOGGING_LEVEL
    TORCHINDUCTOR_CACHE_DIR PYTORCH_CUDA_ALLOC_CONF TRITON_CACHE_DIR FLASHINFER_WORKSPACE_BASE OMP_NUM_THREADS CC
"""


def shell(*texts: str) -> dict[str, str]:
    """A caller's environment with these names."""
    return {name: f"the caller's {name}" for text in texts for name in text.split()}


@pytest.mark.parametrize("service", Service)
def test_nothing_of_a_provider_reaches_a_service_by_itself(service: Service) -> None:
    assert surroundings.made(service, shell(FOREIGN), {}, ()) == {}


@pytest.mark.parametrize("service", Service)
def test_what_a_program_needs_and_what_is_ours_reaches_every_service(service: Service) -> None:
    assert surroundings.made(service, shell(NEEDED), {}, ()) == shell(NEEDED)


def test_what_is_for_engines_reaches_residency_and_not_the_gateway() -> None:
    assert surroundings.made(Service.RESIDENCY, shell(OF_ENGINES), {}, ()) == shell(OF_ENGINES)
    assert surroundings.made(Service.GATEWAY, shell(OF_ENGINES), {}, ()) == shell("HF_HOME")


def test_what_the_yaml_names_is_taken_from_the_caller_and_what_stands_in_env_reaches_everybody() -> None:
    caller = shell("OPENAI_API_KEY", "ANTHROPIC_API_KEY")
    env_file = {"LANGFUSE_HOST": "in .env", "OPENAI_API_KEY": "in .env"}
    made = surroundings.made(Service.GATEWAY, caller, {}, {"OPENAI_API_KEY"})
    assert made == shell("OPENAI_API_KEY")
    assert surroundings.made(Service.GATEWAY, caller, env_file, {"OPENAI_API_KEY"}) == env_file


def test_a_setting_of_ours_in_the_shell_wins_over_the_one_in_env() -> None:
    made = surroundings.made(Service.GATEWAY, {"ROUNDHOUSE_PORT": "7001"}, {"ROUNDHOUSE_PORT": "7000"}, ())
    assert made == {"ROUNDHOUSE_PORT": "7001"}


def test_what_would_move_litellms_routes_is_kept_out_of_env_too() -> None:
    assert surroundings.made(Service.GATEWAY, {}, {"SERVER_ROOT_PATH": "/x"}, {"SERVER_ROOT_PATH"}) == {}


def test_what_the_command_env_prints_is_nobodys_key_at_a_provider() -> None:
    """A YAML may name OPENAI_API_KEY; in a shell that has evaluated 'roundhouse env' that is the master key."""
    caller = {
        "LITELLM_MASTER_KEY": "sk-ours",
        "OPENAI_API_KEY": "sk-ours",
        "OPENAI_BASE_URL": "http://127.0.0.1:7000/v1",
    }
    named = {"OPENAI_API_KEY", "OPENAI_BASE_URL"}
    made = surroundings.made(Service.GATEWAY, caller, {}, named, ("127.0.0.1", 7000))
    assert made == {"LITELLM_MASTER_KEY": "sk-ours"}


def test_a_service_takes_the_same_from_what_up_has_made_as_from_the_shell() -> None:
    caller = shell(FOREIGN, NEEDED, OF_ENGINES)
    for service in (Service.GATEWAY, Service.RESIDENCY, Service.SERVER):
        handed = surroundings.made(Service.ALL, caller, {"X": "in .env"}, {"OPENAI_API_KEY"})
        at_once = surroundings.made(service, caller, {"X": "in .env"}, {"OPENAI_API_KEY"})
        assert surroundings.made(service, handed, {"X": "in .env"}, {"OPENAI_API_KEY"}) == at_once


@pytest.mark.parametrize(
    ("url", "there"),
    [
        ("http://127.0.0.1:7000/v1", True),
        ("http://localhost:7000", True),
        ("http://LOCALHOST.:7000/v1/", True),
        ("http://127.9.9.9:7000", True),
        ("http://[::1]:7000/v1", True),
        ("http://0.0.0.0:7000", True),
        ("http://lan.example:7000/v1", True),
        ("http://127.0.0.1:7001/v1", False),
        ("http://other.example:7000/v1", False),
        ("https://api.openai.com/v1", False),
        ("http://[broken", False),
        ("sk-key", False),
        ("", False),
    ],
)
def test_an_address_that_leads_to_the_gateway_is_known_by_its_text(url: str, there: bool) -> None:
    assert surroundings.leads_to(url, ("lan.example", 7000)) is there


def test_the_names_in_a_yaml_and_in_those_that_it_includes_are_found(tmp_path: Path) -> None:
    (tmp_path / "main.yaml").write_text(
        "include:  # others\n  - more.yaml\n  - 'cloud.yaml'  # the cloud\n- third.yaml\n\n"
        "model_list:\n  - {model_name: a, litellm_params: {api_key: os.environ/A_KEY}}\n  - not.yaml\n"
        "    env: {B: ${B_TOKEN}}\n"
    )
    (tmp_path / "more.yaml").write_text("x: os.environ/MORE")
    (tmp_path / "cloud.yaml").write_text("x: os.environ/CLOUD")
    (tmp_path / "third.yaml").write_text("x: os.environ/THIRD")
    (tmp_path / "not.yaml").write_text("x: os.environ/NOT")
    texts = list(surroundings.texts(tmp_path / "main.yaml"))

    def found(service: Service) -> set[str]:
        return {name for text in texts for name in surroundings.names(service, text)}

    of_litellm = {"A_KEY", "MORE", "CLOUD", "THIRD"}
    assert found(Service.GATEWAY) == of_litellm
    assert found(Service.RESIDENCY) == {"B_TOKEN"}
    assert found(Service.ALL) == of_litellm | {"B_TOKEN"}


def test_a_yaml_that_includes_itself_has_an_end(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("include:\n  - a.yaml\n  - missing.yaml\nx: os.environ/X\n")
    assert len(list(surroundings.texts(tmp_path / "a.yaml"))) == 1


def test_a_process_that_enters_has_only_what_was_made_for_it(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("api_key: os.environ/NAMED\n")
    code = "from roundhouse.config import surroundings as it; it.enter(it.Service.GATEWAY); import os, subprocess\n"
    code += "print(sorted(os.environ)); print(subprocess.check_output(['env'], text=True))"
    caller = {**os.environ, **shell(FOREIGN, "NAMED"), "ROUNDHOUSE_CONFIG": str(tmp_path / "c.yaml")}
    done = subprocess.run([sys.executable, "-c", code], env=caller, capture_output=True, text=True, check=True)
    assert "'NAMED'" in done.stdout
    assert "NAMED=" in done.stdout
    assert not [name for name in FOREIGN.split() if name in done.stdout]
