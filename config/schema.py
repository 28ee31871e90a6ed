"""What Roundhouse reads of the YAML, as frozen models. Unknown keys are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ByteSize, ConfigDict, Field, WithJsonSchema

from roundhouse.config.wsl import in_wsl

Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0)]
Size = Annotated[
    ByteSize, Field(ge=0), WithJsonSchema({"type": ["string", "integer"], "examples": ["16GiB", "512MiB"]})
]

RESERVE, RESERVE_WSL = 512 * 2**20, 1024 * 2**20
"""What stays free of a device by default: room for a desktop and a browser. On WSL2 twice as much, because Windows lets
a program have less of a card than the driver calls free (microsoft/WSL issues 41176 and 40401)."""


def _no_is_off(value: object) -> object:
    """YAML reads ``off`` as false."""
    return "off" if value is False else value


class Strict(BaseModel):
    """Frozen, and nothing but what is named."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)


class DeviceSettings(Strict):
    """What engines run on: a GPU, or the CPU of a machine without one."""

    id: str = Field("gpu0", description="The name by which launchers and status refer to the device.")
    memory: Size | None = Field(
        None,
        description="How much memory it has; by default what the driver says. Else one engine at a time.",
    )
    reserve: Size | None = Field(
        None,
        description="Memory of the device that stays free for others, a desktop or a browser; by default 512 MiB, on "
        "WSL2 1 GiB.",
    )

    @property
    def kept_free(self) -> int:
        """``reserve`` in bytes, or what it is by default on this machine."""
        if self.reserve is not None:
            return int(self.reserve)
        return RESERVE_WSL if in_wsl() else RESERVE


class ResidencySettings(Strict):
    """The top-level key ``residency``."""

    devices: tuple[DeviceSettings, ...] = Field(
        (DeviceSettings(id="gpu0"),), description="The devices that engines run on.", min_length=1
    )
    ram_budget: Size | None = Field(
        None, description="RAM that sleeping models' weights may take; by default half of the machine's."
    )
    exact_pinning: bool = Field(
        False,
        description="Whether torch pins exactly what a sleeping model's weights need, instead of up to twice as much; "
        "no card has confirmed it yet.",
    )
    default: str | None = Field(
        None, description="The model that comes back onto its device when nobody wants another."
    )
    max_wait_s: Annotated[float, Field(ge=0)] = Field(
        300.0, description="How long a request may wait for its model before it is refused, in seconds."
    )
    drain_timeout_s: Seconds = Field(
        900.0, description="How long running answers may hold up a switch before they are cut, in seconds."
    )
    max_waiting: Annotated[int, Field(ge=1)] = Field(
        1000, description="How many requests may wait at once; one more is refused with status 429."
    )
    max_waiting_per_key: Annotated[int, Field(ge=1)] = Field(
        500, description="How many of these may be one key's; one more of it is refused with status 429."
    )
    foresight: bool = Field(
        True,
        description="Whether a model that is about to be asked for comes on while the device has nothing to do; no "
        "model leaves for it within a minute of its last request.",
    )
    journal: bool = Field(
        False,
        description="Whether to write down who asked for which model when (no text, no keys), for bench switching.",
    )


class BaseLauncher(Strict):
    """What every launcher has."""

    port: Port = Field(description="The loopback port that the engine listens on; the model's api_base has the same.")
    env: dict[str, str] = Field(
        default_factory=dict,
        description="Environment variables for the engine; ${NAME} stands for one of ours.",
    )
    device: str | None = Field(None, description="The id of the device it runs on; by default the first.")
    memory: Size | None = Field(
        None, description="What the engine takes of the device while it answers; by default measured."
    )
    slots: Annotated[int, Field(ge=1)] | None = Field(
        None,
        description="How many requests it answers at once; more wait, in a fair order. By default vLLM's "
        "--max-num-seqs, if that is given.",
    )
    token_ids: bool = Field(
        False,
        description="Whether embeddings may be asked for by token ids, which are the model's own tokenizer's then.",
    )
    infill: tuple[str, str, str] | None = Field(
        None,
        description="The model's marks for filling a gap: before the text in front of it, before the text behind it, "
        "and where its own is to come. With them /v1/completions takes a suffix.",
    )
    pinned: bool = Field(False, description="Whether it stays on the device once it is there.")
    preload: bool = Field(False, description="Whether it is started when Roundhouse is.")
    idle_sleep_s: Seconds | None = Field(
        None, description="After how long without a request it is put to sleep, though nobody wants its place."
    )
    idle_stop_s: Seconds | None = Field(
        None, description="After how long without a request it is stopped, though nobody wants its place."
    )
    start_timeout_s: Seconds = Field(600.0, description="How long a start may take before it counts as failed.")
    stop_grace_s: Seconds = Field(20.0, description="How long the engine may take to end by itself when stopped.")


class VllmLauncher(BaseLauncher):
    """A vLLM server from the engine environment (CUDA or CPU)."""

    kind: Literal["vllm"]
    model: str = Field(description="A folder with weights, or a name on the model hub.", min_length=1)
    args: tuple[str, ...] = Field((), description="Further arguments of vLLM's server.")
    sleep: Annotated[Literal["auto", "off", 1, 2], BeforeValidator(_no_is_off)] = Field(
        "auto",
        description="How it makes room: asleep at level 1 (weights in RAM) or 2 (weights dropped), off: stopped, "
        "auto: as memory allows.",
    )
    host: Annotated[Literal["auto", "off"], BeforeValidator(_no_is_off)] = Field(
        "auto", description="Whether it may be forked from a process that has imported vLLM already."
    )
    stand_in: Literal["chat", "code", "vision", "embedding"] | None = Field(
        None,
        description="The kind of tiny random model that stands in for this one where no hub can be reached.",
    )


class CommandLauncher(BaseLauncher):
    """Any OpenAI-compatible server, given as a command."""

    kind: Literal["command"]
    argv: tuple[str, ...] = Field(
        description="The command and its arguments; ${PORT} and other ${NAME} are filled in.",
        min_length=1,
    )
    health_path: str = Field(
        "/health",
        description="What answers 200 once the server is ready; /v1/models is tried, too, where it has no such path.",
        pattern="^/",
    )


Launcher = VllmLauncher | CommandLauncher


class ModelEntry(Strict):
    """A model of ``model_list`` that has a launcher."""

    name: str
    served_name: str
    api_base: str
    device: str
    launcher: Annotated[Launcher, Field(discriminator="kind")]


class Settings(Strict):
    """All of the YAML that Roundhouse reads, after every check.

    ``aliases``: alias -> model name; ``other_names``: the same of entries that another's engine answers.
    ``pass_through``: the routes that the YAML adds to LiteLLM's, as they stand there.
    """

    path: Path
    residency: ResidencySettings
    models: dict[str, ModelEntry]
    aliases: dict[str, str] = Field(default_factory=dict)
    other_names: dict[str, str] = Field(default_factory=dict)
    pass_through: tuple[dict[str, Any], ...] = ()
