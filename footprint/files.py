"""A model's files, wherever they are: a folder, the hub's cache, the hub itself, or the table that is shipped.

Only headers and configurations are read, never weights.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from roundhouse.footprint.headers import FilesError, Tensor, read_header

Source = Literal["folder", "cache", "hub", "shipped"]

SHIPPED = Path(__file__).with_name("known_models.json")
"""``config.json`` of the models that the presets name, for a machine that has no network yet: keys that matter."""

NOT_HERE = "not on this machine yet: sizes are from the table of known models that comes with Roundhouse"

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
OTHER_WEIGHTS = ("*.bin", "*.pt")


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """What is known of a model without loading it.

    ``tensors``: every stored one, empty where headers cannot be had; ``stored_bytes``: their size by headers or
    index. ``unknown``: what is missing, in words.
    """

    name: str
    source: Source
    config: dict[str, Any]
    tensors: tuple[Tensor, ...] = ()
    stored_bytes: int | None = None
    max_pixels: int | None = None
    unknown: tuple[str, ...] = ()


def read_files(model: str, network: bool = False) -> ModelFiles:
    """What can be told of ``model``, a folder or a name on the hub; ``network``: the hub may be asked.

    Raises:
        FilesError: nothing can be told, or what is there is damaged.
    """
    if is_folder(model):
        return read_folder(Path(model).expanduser(), model, "folder")
    folder = cached(model)
    if folder is not None:
        return read_folder(folder, model, "cache")
    if network:
        return _from_hub(model)
    if model in shipped():
        return ModelFiles(model, "shipped", shipped()[model], unknown=(NOT_HERE,))
    raise FilesError(f"{model} is not on this machine, and the model hub was not asked or cannot be reached")


def is_folder(model: str) -> bool:
    """Whether ``model`` is a path on this machine, not a name on the hub (``owner/name``)."""
    return model.startswith(("/", "./", "../", "~", ".")) or model.count("/") > 1 or Path(model).is_dir()


def cached(model: str) -> Path | None:
    """The folder of ``model`` in the hub's cache, if its ``config.json`` is there."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(model, "config.json")
    except HFValidationError as error:
        raise FilesError(f"{model!r} is neither a folder nor a name on the model hub (owner/name)") from error
    return Path(found).parent if isinstance(found, str) else None


@cache
def shipped() -> dict[str, dict[str, Any]]:
    """The shipped table: repository -> ``config.json``."""
    found: dict[str, dict[str, Any]] = json.loads(SHIPPED.read_text(encoding="utf-8"))
    return found


def read_folder(folder: Path, name: str, source: Source) -> ModelFiles:
    """Read a folder with ``config.json`` and safetensors. Raises FilesError."""
    if not folder.is_dir():
        raise FilesError(f"{folder} is no folder")
    unknown: list[str] = []
    config_file = folder / "config.json"
    if config_file.is_file():
        config = _json(config_file)
    else:
        config = {}
        unknown.append(f"{folder} has no config.json: its KV cache and its peak cannot be told")
    tensors, stored = _weights(folder, unknown)
    if not config and stored is None:
        raise FilesError(f"{folder} has neither a config.json nor weights")
    return ModelFiles(name, source, config, tensors, stored, _max_pixels(folder), tuple(unknown))


def _weights(folder: Path, unknown: list[str]) -> tuple[tuple[Tensor, ...], int | None]:
    """All tensors and their size; by the index alone where files are missing."""
    index = folder / INDEX
    if index.is_file():
        told = _json(index)
        shards = told.get("weight_map")
        names = sorted({str(it) for it in shards.values()}) if isinstance(shards, dict) else []
        missing = [it for it in names if not (folder / it).is_file()]
        if names and not missing:
            return _headers(folder / it for it in names)
        unknown.append(f"{len(missing)} of {len(names)} weight files are not here: their size is from the index")
        size = told.get("metadata", {}).get("total_size") if isinstance(told.get("metadata"), dict) else None
        return (), int(size) if isinstance(size, int | float) and size > 0 else None
    files = [folder / SINGLE] if (folder / SINGLE).is_file() else sorted(folder.glob("*.safetensors"))
    if files:
        return _headers(files)
    size = sum(it.stat().st_size for pattern in OTHER_WEIGHTS for it in folder.glob(pattern))
    unknown.append("no safetensors: the size is that of the files" if size else "no weights here: sizes from shapes")
    return (), size or None


def _headers(files: Iterable[Path]) -> tuple[tuple[Tensor, ...], int]:
    tensors = tuple(it for file in files for it in read_header(file))
    return tensors, sum(it.size for it in tensors)


def _max_pixels(folder: Path) -> int | None:
    file = folder / "preprocessor_config.json"
    return pixels_of(_json(file)) if file.is_file() else None


def pixels_of(processor: dict[str, Any]) -> int | None:
    """A picture's largest number of pixels by ``preprocessor_config.json``."""
    size = processor.get("size")
    found = processor.get("max_pixels") or (size.get("longest_edge") if isinstance(size, dict) else None)
    return found if isinstance(found, int) and found > 10_000 else None  # else it is an edge, not an area


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FilesError(f"{path} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise FilesError(f"{path} is no JSON: fetch it again") from error
    if not isinstance(found, dict):
        raise FilesError(f"{path} holds no JSON object: fetch it again")
    return found


def _from_hub(model: str) -> ModelFiles:
    """Ask the hub for headers and configuration. Raises FilesError."""
    import httpx
    from huggingface_hub import get_safetensors_metadata, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, NotASafetensorsRepoError

    unknown: list[str] = []
    tensors: tuple[Tensor, ...] = ()
    try:
        config = _json(Path(hf_hub_download(model, "config.json")))
        try:
            told = get_safetensors_metadata(model)
            tensors = tuple(
                Tensor(name, it.dtype, tuple(it.shape), it.data_offsets[1] - it.data_offsets[0])
                for file in told.files_metadata.values()
                for name, it in file.tensors.items()
            )
        except NotASafetensorsRepoError:
            unknown.append("no safetensors: sizes from shapes")
        try:
            pixels = pixels_of(_json(Path(hf_hub_download(model, "preprocessor_config.json"))))
        except EntryNotFoundError:
            pixels = None
    except (HfHubHTTPError, httpx.HTTPError, ImportError, OSError, ValueError) as error:  # no library for a proxy
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise FilesError(f"{model}: the model hub does not tell ({reason})") from error
    stored = sum(it.size for it in tensors) or None
    return ModelFiles(model, "hub", config, tensors, stored, pixels, tuple(unknown))
