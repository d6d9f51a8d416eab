"""The node's configuration: flags over environment over file over default, strict."""

from __future__ import annotations

from typing import Literal

import msgspec


class ChainSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section [chain]. `urls` are tried in order; each is ws:// or http:// (wss, https)."""

    urls: tuple[str, ...] = ("ws://127.0.0.1:8545",)
    contract: str = ""
    poll_seconds: float = 5.0
    max_fee_gwei: float = 100.0


class GossipSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section [gossip]. Addresses are multiaddrs; `bootnodes` come on top of those in the contract."""

    listen: tuple[str, ...] = ("/ip4/0.0.0.0/tcp/38331",)
    announce: tuple[str, ...] = ()
    bootnodes: tuple[str, ...] = ()
    max_peers: int = 64
    ping_seconds: float = 5.0


class TrainerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section [trainer]; crosses to the child as it is. `slowdown` adds seconds per generated group."""

    model: str = ""
    device: str = "auto"
    dtype: str = "auto"
    threads: int = 1
    seed: int = 0
    learning_rate: float = 4e-4
    importance_cap: float = 2.0
    max_grad_norm: float = 1.0
    micro_batch: int = 256
    data: str = ""
    slowdown: float = 0.0
    memory_limit_mib: int = 0


class HttpSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section [http]. Port 0 takes a free one; the one taken stands in DATA/http.json."""

    host: str = "127.0.0.1"
    port: int = 8087


class LogSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section [log]. `auto` is text on a terminal, JSON elsewhere."""

    format: Literal["auto", "json", "text"] = "auto"
    level: Literal["debug", "info", "warning", "error"] = "info"


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole of `swarm.toml`. Paths are relative to the data directory."""

    manifest: str = "manifest.toml"
    identity: str = "swarm.pem"
    chain: ChainSettings = ChainSettings()
    gossip: GossipSettings = GossipSettings()
    trainer: TrainerSettings = TrainerSettings()
    http: HttpSettings = HttpSettings()
    log: LogSettings = LogSettings()
