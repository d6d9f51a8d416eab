"""`swarm bootnode`."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import click
import msgspec
import structlog
import trio

from node.cli.options import config_flags, config_from, data_dir_option, expanded
from node.config import Config
from node.errors import first
from node.exits import Exit, Refusal
from node.files.atomic import replace_file

log = structlog.get_logger()

FILE = "bootnode.json"
MAX_PEERS = 256


class Announced(msgspec.Struct, frozen=True):
    """The content of bootnode.json: multiaddrs for other nodes, and the process id."""

    addresses: tuple[str, ...]
    pid: int


@click.command(short_help="Introduce peers to each other and do nothing else.")
@data_dir_option
@config_flags("identity", "gossip.listen", "gossip.announce", "gossip.bootnodes", "log.format", "log.level")
def bootnode(data_dir: Path, **flags: Any) -> int:
    """Introduce peers to each other and do nothing else. Its addresses are in the data directory's bootnode.json."""
    from node.logs import configure
    from node.store.directory import DataDirectory

    home = expanded(data_dir)
    config = config_from(home, flags)
    configure(config.log)
    with DataDirectory(home):
        return _serve(config, home)


def _serve(config: Config, home: Path) -> int:
    from node.identity import IdentityError, load_or_create
    from node.network.host import HostListenError
    from node.network.libp2p_patches.repairs import check_version

    check_version()
    try:
        key = load_or_create(home / config.identity)
        trio.run(_until_told, config, home, key)
    except (IdentityError, HostListenError, BaseExceptionGroup) as error:
        for kind, code in ((IdentityError, Exit.IDENTITY), (HostListenError, Exit.NETWORK)):
            if found := first(error, kind):
                raise Refusal(code, str(found)) from error
        raise
    finally:
        (home / FILE).unlink(missing_ok=True)
    return Exit.OK


async def _until_told(config: Config, home: Path, key: Any) -> None:
    """Run until SIGTERM or SIGINT."""
    from node.network.bootnode_host import run_bootnode

    def started(addresses: tuple[str, ...]) -> None:
        content = msgspec.json.encode(Announced(tuple(addresses), os.getpid()))
        replace_file(home / FILE, content, mode=0o600, durable=False)

    async with trio.open_nursery() as nursery:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as received:
            nursery.start_soon(_bootnode, run_bootnode, config, home, key, started)
            async for number in received:
                log.info("bootnode.stopping", signal=signal.Signals(number).name)
                nursery.cancel_scope.cancel()
                return


async def _bootnode(run_bootnode: Any, config: Config, home: Path, key: Any, started: Any) -> None:
    await run_bootnode(
        key,
        config.gossip.listen,
        announce=config.gossip.announce,
        bootnodes=config.gossip.bootnodes,
        peer_store=home / "peers.json",
        max_peers=MAX_PEERS,
        started=started,
    )
