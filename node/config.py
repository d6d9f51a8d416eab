"""The node's configuration, strictly typed: flags override the environment, which overrides the file and defaults."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from node.exits import Exit, Refusal

FILE = "swarm.toml"
PREFIX = "SWARM_"
DATA_DIR_VARIABLE = "SWARM_DATA_DIR"


class ChainSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section [chain]. `urls` are tried in order; each is ws:// or http:// (wss, https)."""

    urls: Annotated[tuple[str, ...], Meta(description="RPC endpoints, tried in order: ws, wss, http, https.")] = (
        "ws://127.0.0.1:8545",
    )
    contract: Annotated[str, Meta(description="The coordinator contract's address.")] = ""
    binding: Annotated[
        Literal["auto", "swarm", "rl-swarm"],
        Meta(description="The contract's interface: ours, RL Swarm's, or auto to detect it."),
    ] = "auto"
    poll_seconds: Annotated[
        float, Meta(gt=0, description="Polling interval for endpoints that do not push new blocks, in seconds.")
    ] = 5.0
    max_fee_gwei: Annotated[
        float, Meta(gt=0, description="Most that is paid per unit of gas; above it transactions wait.")
    ] = 100.0
    relay: Annotated[
        bool, Meta(description="Relay: submit other nodes' signed messages while there are funds for it.")
    ] = True
    relay_gas_per_day: Annotated[
        int, Meta(ge=0, description="Gas budget: most gas spent per day on other nodes' messages.")
    ] = 10_000_000


class GossipSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section [gossip]. Addresses are multiaddrs; `bootnodes` are added to those in the contract."""

    listen: Annotated[tuple[str, ...], Meta(description="Multiaddrs to listen on.")] = ("/ip4/0.0.0.0/tcp/38331",)
    announce: Annotated[
        tuple[str, ...],
        Meta(description="Multiaddrs under which others reach this node, if they differ (NAT, proxy)."),
    ] = ()
    bootnodes: Annotated[
        tuple[str, ...], Meta(description="Multiaddrs of bootnodes, in addition to the contract's.")
    ] = ()
    max_peers: Annotated[int, Meta(ge=1, description="Most connections that are kept.")] = 64
    peers_per_network: Annotated[int, Meta(ge=1, description="Most connections per untrusted /24 (IPv6: /64).")] = 8
    trusted_networks: Annotated[
        tuple[str, ...],
        Meta(description="Networks exempt from peers_per_network; default: private ones and this machine."),
    ] = ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1/128", "fc00::/7", "fe80::/10")
    upload_bytes_per_second: Annotated[
        float, Meta(gt=0, description="Bytes of bodies and announcements served to all peers together, per second.")
    ] = 16_777_216.0
    ping_seconds: Annotated[
        float, Meta(gt=0, description="Ping interval per peer, in seconds; a peer that hangs is disconnected.")
    ] = 5.0


class TrainerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section [trainer]; crosses to the child as it is. `slowdown` adds seconds per generated group."""

    model: Annotated[str, Meta(description="Directory or name of the model; empty is the manifest's.")] = ""
    data: Annotated[str, Meta(description="This node's copy of the questions, where the manifest names a file.")] = ""
    seed: Annotated[int, Meta(description="Seed of initialisation and sampling.")] = 0
    device: Annotated[str, Meta(description="auto, cpu, cuda or mps.")] = "auto"
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"],
        Meta(description="Type of the arithmetic; auto is what the CPU or GPU is made for."),
    ] = "auto"
    threads: Annotated[int, Meta(ge=1, description="CPU threads of the trainer.")] = 1
    engine: Annotated[
        Literal["auto", "hf", "vllm"],
        Meta(description="What samples: hf is built in; auto takes vllm on CUDA where it is installed."),
    ] = "auto"
    python: Annotated[
        str, Meta(description="Interpreter of the trainer process; empty is the node's. For an engine of its own.")
    ] = ""

    world_size: Annotated[
        int, Meta(ge=1, description="Processes (ranks) that train one model together by FSDP2; 1 is one GPU or CPU.")
    ] = 1
    rendezvous_endpoint: Annotated[
        str,
        Meta(description="host:port of rank 0, at which ranks on other machines join; empty starts all of them here."),
    ] = ""

    learning_rate: Annotated[float, Meta(gt=0, description="Learning rate of the optimiser.")] = 4e-4
    warmup_steps: Annotated[int, Meta(ge=0, description="Updates over which the learning rate rises.")] = 5
    optimizer: Annotated[
        Literal["adam", "adam8bit"], Meta(description="adam8bit keeps its state in 8 bits (extra `quant`).")
    ] = "adam"
    loss: Annotated[
        Literal["grpo", "dr-grpo"],
        Meta(
            description="grpo averages over all tokens of an update; dr-grpo leaves advantages unscaled and counts "
            "each completion as the longest possible."
        ),
    ] = "grpo"
    epsilon: Annotated[float, Meta(ge=0, lt=1, description="How far a probability ratio may fall below 1.")] = 0.2
    epsilon_high: Annotated[float, Meta(ge=0, description="How far a probability ratio may rise above 1.")] = 0.28
    beta: Annotated[
        float,
        Meta(ge=0, description="Weight of the KL divergence from the starting model, a copy of which is then kept."),
    ] = 0.0
    external: Annotated[
        Literal["weighted", "on-policy"],
        Meta(description="External groups: weighted by truncated importance, or as if sampled here (SAPO)."),
    ] = "weighted"
    importance_cap: Annotated[float, Meta(gt=0, description="Bound on the importance weight of external rollouts.")] = (
        2.0
    )
    mask_truncated: Annotated[bool, Meta(description="Leave completions that were cut off out of the loss.")] = False
    max_grad_norm: Annotated[float, Meta(gt=0, description="Bound on the norm of the gradient.")] = 1.0

    lora: Annotated[int, Meta(ge=0, description="Rank of LoRA adapters (extra `lora`); 0 trains all weights.")] = 0
    quantise: Annotated[
        Literal["none", "nf4"], Meta(description="nf4 holds the base model in 4 bits (extra `quant`); needs lora.")
    ] = "none"
    gradient_checkpointing: Annotated[
        Literal["auto", "always", "never"],
        Meta(description="Recompute activations in the backward pass instead of keeping them; auto where needed."),
    ] = "auto"
    micro_batch: Annotated[
        int,
        Meta(ge=1, description="Completions in a micro-batch of an update; shrinks by itself when memory is short."),
    ] = 256
    micro_batch_tokens: Annotated[
        int, Meta(ge=0, description="Tokens in a micro-batch of an update; 0 is by the memory plan.")
    ] = 0
    max_num_seqs: Annotated[
        int, Meta(ge=0, description="Completions (sequences) that are sampled at once; 0 is by the memory plan.")
    ] = 0
    gpu_memory_utilization: Annotated[
        float,
        Meta(
            gt=0,
            le=1,
            description="Share of the free memory, of the GPU or the machine, that the plan may use.",
        ),
    ] = 0.9
    memory_limit_mib: Annotated[
        int, Meta(ge=0, description="Bound on the memory of the trainer process, MiB; 0 is none.")
    ] = 0
    checkpoints: Annotated[int, Meta(ge=1, description="Checkpoints that are kept.")] = 2
    slowdown: Annotated[
        float, Meta(ge=0, description="Seconds added per generated group, for trials of slow nodes.")
    ] = 0.0


class HubSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section [hub]: pushing the model to the Hugging Face hub. The token is never part of it."""

    repo: Annotated[str, Meta(description="Repository the model is pushed to, OWNER/NAME; empty pushes nothing.")] = ""
    every: Annotated[int, Meta(ge=1, description="Rounds between two pushes.")] = 50
    private: Annotated[bool, Meta(description="Whether the node creates the repository as private.")] = False
    merged: Annotated[
        bool, Meta(description="Whether adapters are merged into their base before the push, instead of pushed alone.")
    ] = False
    token_file: Annotated[
        str,
        Meta(description="File with the token, mode 0600; HF_TOKEN and systemd's credential hf-token come first."),
    ] = ""


class TrackerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section [trackers]: experiment trackers. Each needs the extra of its name."""

    tensorboard: Annotated[bool, Meta(description="Whether curves are written for TensorBoard, to tensorboard/.")] = (
        False
    )
    wandb: Annotated[
        str,
        Meta(
            description="Weights & Biases project, offline in wandb/ unless WANDB_MODE says otherwise; empty is none."
        ),
    ] = ""


class HttpSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section [http]. Port 0 chooses a free one; the actual port is in DATA/http.json."""

    host: Annotated[str, Meta(description="Address of the status server.")] = "127.0.0.1"
    port: Annotated[
        int, Meta(ge=0, le=65535, description="Port of the status server; 0 chooses a free one, written to http.json.")
    ] = 8087
    names: Annotated[
        tuple[str, ...],
        Meta(
            description="DNS names that a proxy on this machine forwards. While host is a loopback address, requests "
            "for names other than these, localhost and IP addresses are refused (DNS rebinding)."
        ),
    ] = ()


class LogSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section [log]. `auto` is text on a terminal, JSON elsewhere."""

    format: Annotated[
        Literal["auto", "json", "text"], Meta(description="auto is text on a terminal, JSON elsewhere.")
    ] = "auto"
    level: Annotated[Literal["debug", "info", "warning", "error"], Meta(description="Lowest level that is logged.")] = (
        "info"
    )


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole of `swarm.toml`. Paths are relative to the data directory."""

    manifest: Annotated[str, Meta(description="The swarm's manifest.")] = "manifest.toml"
    identity: Annotated[str, Meta(description="The node key.")] = "swarm.pem"
    own_owner: Annotated[
        bool, Meta(description="Without an owner's delegation (`swarm login`), the node key owns itself, permanently.")
    ] = False
    chain: ChainSettings = ChainSettings()
    gossip: GossipSettings = GossipSettings()
    trainer: TrainerSettings = TrainerSettings()
    hub: HubSettings = HubSettings()
    trackers: TrackerSettings = TrackerSettings()
    http: HttpSettings = HttpSettings()
    log: LogSettings = LogSettings()


# --- the table of keys ------------------------------------------------------------------------------------------------


class ConfigKey(msgspec.Struct, frozen=True):
    """One configuration key: dotted name, environment variable, annotated type, default, description."""

    name: str
    variable: str
    type: Any
    default: object
    help: str

    @property
    def listed(self) -> bool:
        """Whether the key is a list."""
        return tuple in (get_origin(self.type), get_origin(getattr(self.type, "__origin__", None)))


def _keys(struct: type[msgspec.Struct], prefix: str = "") -> Iterator[ConfigKey]:
    hints = get_type_hints(struct, include_extras=True)
    for field in msgspec.structs.fields(struct):
        name = prefix + field.name
        if isinstance(hints[field.name], type) and issubclass(hints[field.name], msgspec.Struct):
            yield from _keys(hints[field.name], f"{name}.")
        else:
            text = next((each.description or "" for each in getattr(hints[field.name], "__metadata__", ())), "")
            yield ConfigKey(name, PREFIX + name.replace(".", "_").upper(), hints[field.name], field.default, text)


KEYS: dict[str, ConfigKey] = {key.name: key for key in _keys(Config)}
"""Every key by its dotted name."""

SECTIONS = tuple(dict.fromkeys(name.split(".")[0] for name in KEYS if "." in name))


# --- loading ----------------------------------------------------------------------------------------------------------


def load_config(data_dir: Path, overrides: Mapping[str, object], environ: Mapping[str, str]) -> Config:
    """Return the configuration of `data_dir`. `overrides` (flags, by dotted key) override `environ`, then the file.

    Raises `Refusal` in one line for an unknown key (with the nearest known one), a wrong type, a value out of range, or
    a file that can't be read. A missing file counts as empty. An override of None is a flag that was not given.
    """
    path = data_dir / FILE
    found = _from_file(path)
    for source, values in (("environment", from_environment(environ)), ("flags", overrides)):
        for name, value in values.items():
            if value is not None:
                _set(found, name, _converted(source, name, value))
    try:
        return msgspec.convert(found, Config)
    except msgspec.ValidationError as error:
        raise Refusal(Exit.CONFIG, f"{path}: {readable(error)}; correct it") from error


def from_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the values of SWARM_SECTION_KEY variables by dotted key.

    Raises `Refusal` for an unknown variable that starts like a section or resembles a known one. Other SWARM_ variables
    belong to other programs (container orchestrators set such names for services).
    """
    known = {key.variable: key.name for key in KEYS.values()}
    values = {known[variable]: value for variable, value in environ.items() if variable in known}
    for variable in environ:
        if variable.startswith(PREFIX) and variable not in known and variable != DATA_DIR_VARIABLE:
            _suspect(variable, known)
    return values


def _suspect(variable: str, known: Mapping[str, str]) -> None:
    section = variable.removeprefix(PREFIX).split("_")[0].lower()
    near = difflib.get_close_matches(variable, known, n=1, cutoff=0.0 if section in SECTIONS else 0.8)
    if near:
        raise Refusal(
            Exit.CONFIG, f"environment: unknown variable {variable}; did you mean {near[0]}? Rename or unset it"
        )


def _from_file(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = msgspec.toml.decode(path.read_bytes())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise Refusal(Exit.CONFIG, f"cannot read {path}: {error.strerror}; check path and permissions") from error
    except ValueError as error:
        raise Refusal(Exit.CONFIG, f"{path} is not valid TOML: {error}; correct it") from error
    for name in _dotted(found):
        if name not in KEYS:
            raise Refusal(Exit.CONFIG, f"{path}: {unknown(name)}")
    return found


def _dotted(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield the dotted names of a parsed file; an unknown table counts as one name."""
    for name, value in found.items():
        if isinstance(value, dict) and name in SECTIONS:
            yield from (f"{name}.{inner}" for inner in value)
        elif name not in SECTIONS:
            yield name


def unknown(name: str) -> str:
    """Return the error text for an unknown dotted key, with the nearest known one."""
    same_word = [key for key in KEYS if key.rpartition(".")[2] == name.rpartition(".")[2]]
    near = same_word or difflib.get_close_matches(name, [*KEYS, *SECTIONS], n=1, cutoff=0.0)
    return f"unknown key {name}; did you mean {near[0]}?"


def _converted(source: str, name: str, value: object) -> object:
    """Return the value of a flag or variable in its key's type; list items are separated by commas."""
    if name not in KEYS:
        raise Refusal(Exit.CONFIG, f"{source}: {unknown(name)}")
    key = KEYS[name]
    if key.listed and isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    try:
        return msgspec.convert(value, key.type, strict=False)
    except msgspec.ValidationError as error:
        where = f"{key.variable} in the environment" if source == "environment" else f"{name} among the flags"
        raise Refusal(Exit.CONFIG, f"{where}: {readable(error)}; correct it") from error


def _set(found: dict[str, Any], name: str, value: object) -> None:
    section, _, key = name.rpartition(".")
    table = found.setdefault(section, {}) if section else found
    if isinstance(table, dict):
        table[key] = value


def readable(error: msgspec.ValidationError) -> str:
    """Return msgspec's error as "http.port: expected int, got str"."""
    text, _, place = str(error).replace("`", "").partition(" - at $")
    text = text[:1].lower() + text[1:]
    return f"{place.removeprefix('.')}: {text}" if place else text
