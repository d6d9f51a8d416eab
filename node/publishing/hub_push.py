"""Pushes one model to the Hugging Face hub, as a separate process: `python -m node.publishing.hub_push PARENT`.

`node.publishing.hub_service` starts it, writes a `PushRequest` as JSON to its standard input and reads a
`PushResult` from its output. The token is looked up here, so it never appears in arguments, messages or logs.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from node.child_process import end_with
from node.trainer.file_names import ADAPTER_CONFIG

if TYPE_CHECKING:
    from huggingface_hub import HfApi

CREDENTIAL = "hf-token"
"""Name of the token in systemd's credential directory (`LoadCredential=hf-token:...`)."""

HIDDEN = "[token]"
CARD = "README.md"
STAGE = ".hub"
"""In the trainer's directory: the copy that is being pushed."""


class PushRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What to push: the newest checkpoint's model of a trainer directory, with this card.

    Adapters are pushed alone if `base` names their base model on the hub; without that name they are merged into it.
    """

    trainer: str
    repo: str
    private: bool
    token_file: str
    base: str
    card: str
    message: str


class PushResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result: the commit's URL, or a one-line error."""

    url: str = ""
    error: str = ""


class TokenError(Exception):
    """There is no usable token; the text is one line."""


def find_token(environ: Mapping[str, str], token_file: str) -> str:
    """Return the token: HF_TOKEN, else systemd's credential, else the configured file, else that of `hf auth login`.

    Raises `TokenError` if there is none, or if others may read the configured file.
    """
    if token := environ.get("HF_TOKEN", "").strip():
        return token
    credential = Path(environ.get("CREDENTIALS_DIRECTORY", os.devnull)) / CREDENTIAL
    if credential.is_file():
        return _read(credential)
    if token_file:
        path = Path(token_file).expanduser()
        if path.is_file() and path.stat().st_mode & 0o077:
            raise TokenError(f"others may read {path}, so its token is not used; run: chmod 600 {path}")
        return _read(path)
    from huggingface_hub import get_token

    if stored := get_token():
        return stored
    raise TokenError("no token; set HF_TOKEN, or hub.token_file")


def _read(path: Path) -> str:
    try:
        token = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise TokenError(f"cannot read the token in {path}: {error}; check hub.token_file") from error
    if not token:
        raise TokenError(f"{path} has no token; put it there, or set HF_TOKEN")
    return token


def push(order: PushRequest, token: str) -> PushResult:
    """Create the repository if it is missing and make one commit of model and card. Raises the hub's errors.

    Weights are uploaded by xet if hf_xet is installed; if that fails (a hub without it, a blocked store), by LFS.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError, XetDownloadError

    api = HfApi(token=token, library_name="swarm-node", library_version=own_version())
    with staged(Path(order.trainer), order.base) as model:
        api.create_repo(order.repo, private=order.private, exist_ok=True)
        try:
            return commit(api, order, model)
        except HfHubHTTPError:
            raise
        except (RuntimeError, OSError, ValueError, XetDownloadError):  # all that hf_xet and its bindings raise
            if constants.HF_HUB_DISABLE_XET:
                raise
            constants.HF_HUB_DISABLE_XET = True
            return commit(api, order, model)


def commit(api: HfApi, order: PushRequest, model: Path) -> PushResult:
    """Make one commit of a directory and the card."""
    from huggingface_hub import CommitOperationAdd

    files = sorted(path for path in model.rglob("*") if path.is_file() and path.name != CARD)
    made = api.create_commit(
        order.repo,
        [
            *(CommitOperationAdd(path.relative_to(model).as_posix(), str(path)) for path in files),
            CommitOperationAdd(CARD, order.card.encode()),
        ],
        commit_message=order.message,
    )
    return PushResult(url=made.commit_url)


@contextmanager
def staged(trainer: Path, base: str) -> Iterator[Path]:
    """Yield a copy (hard links) of the newest checkpoint's model: the trainer may remove the checkpoint meanwhile.

    Adapters then name `base`; if it is empty, they are merged.
    """
    from node.trainer.checkpoints.export import export_model, link_or_copy

    place = trainer / STAGE
    shutil.rmtree(place, ignore_errors=True)  # left by a killed push; there is only one push at a time
    try:
        model = export_model(trainer, place / "model", link_or_copy, merged=not base).directory
        if (model / ADAPTER_CONFIG).is_file():
            name_base(model / ADAPTER_CONFIG, base)
        yield model
    finally:
        shutil.rmtree(place, ignore_errors=True)


def name_base(config: Path, base: str) -> None:
    """Make adapters name their base by its hub name instead of a local directory."""
    found = msgspec.json.decode(config.read_bytes())
    config.unlink()  # it may be a hard link to the checkpoint's file
    config.write_bytes(msgspec.json.format(msgspec.json.encode({**found, "base_model_name_or_path": base})))


def own_version() -> str:
    """Return this software's version, "" if it is not installed as a package."""
    try:
        return version("swarm-node")
    except PackageNotFoundError:
        return ""


def line_of(error: BaseException, token: str) -> str:
    """Return an error in one line of at most 300 characters, with the token removed."""
    text = " ".join(str(error).split()) or type(error).__name__
    return (text.replace(token, HIDDEN) if token else text)[:300]


def main(parent: int) -> int:
    """Do the one push that standard input asks for; the answer goes to standard output."""
    end_with(parent)
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=PushRequest)
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"  # read when huggingface_hub is imported
    token = ""
    try:
        token = find_token(os.environ, order.token_file)
        answer = push(order, token)
    except Exception as error:  # noqa: BLE001 - task boundary: whatever went wrong, the node logs it and tries again
        answer = PushResult(error=line_of(error, token))
    sys.stdout.buffer.write(msgspec.json.encode(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
