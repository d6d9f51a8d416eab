"""From the name of a model to a directory on this machine: files that are there are used without asking anybody."""

from __future__ import annotations

from pathlib import Path

import msgspec
import structlog

log = structlog.get_logger()

FILES = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt"]
"""What of a repository is fetched: weights in the format that can't run code, configuration, tokenizer."""

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"


class _Index(msgspec.Struct):
    weight_map: dict[str, str]


def local_directory(model: str) -> Path:
    """Return the directory of a model: itself where it is one, else the hub's copy, fetched unless it is here whole.

    Raises ValueError with one line: what is wrong, and what to do.
    """
    place = Path(model).expanduser()
    if place.is_dir():
        return place
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return _cached(model) or _fetched(model)
    except HFValidationError as error:
        raise ValueError(f"trainer.model: {model!r} is no directory here and no OWNER/NAME on the hub") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise ValueError(
            f"trainer.model: {model!r} is not here and can't be fetched ({_line(error)}); name a directory, or run "
            "`hf auth login` if it needs a token"
        ) from error


def _cached(model: str) -> Path | None:
    """Return the hub cache's copy where it is whole, without a request."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        found = Path(snapshot_download(model, local_files_only=True, allow_patterns=FILES))
    except LocalEntryNotFoundError:
        return None
    return found if is_whole(found) else None


def _fetched(model: str) -> Path:
    from huggingface_hub import snapshot_download

    log.info("model.fetching", model=model)
    found = Path(snapshot_download(model, allow_patterns=FILES))
    if not is_whole(found):
        raise OSError("its repository lacks config.json or weights as safetensors")
    return found


def is_whole(directory: Path) -> bool:
    """Return True if configuration and every part of the weights are there: a fetch may have been cut off."""
    if not (directory / CONFIG).is_file():
        return False
    if (directory / WEIGHTS).is_file():
        return True
    try:
        parts = msgspec.json.decode((directory / INDEX).read_bytes(), type=_Index).weight_map.values()
    except (OSError, msgspec.DecodeError):
        return False
    return all((directory / part).is_file() for part in parts)


def _line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]
