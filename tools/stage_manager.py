"""Holds the clock of a swarm with RL Swarm's contract: `python -m tools.stage_manager --contract 0x... --seconds 300`.

That contract opens a stage only when its stage manager says so. The key of an account with that role comes from
`--key-file` or from SWARM_STAGE_MANAGER_KEY; it needs gas, and nothing else. One manager a swarm: two turn the clock
twice as fast.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import click

from contracts import contract_at, deploy_artifact, send
from node.chain.contract.rlswarm_ledger import ABI

ARTIFACT = "RLSwarmCoordinator"
VERSIONS = ("0.4.2", "0.4.3", "0.6.0")
"""Releases whose rules the test contract has, in the order of its `Version`."""

KEY_VARIABLE = "SWARM_STAGE_MANAGER_KEY"
PAUSE = 5.0
"""Seconds until an update that failed is tried again."""


def deploy_rl_swarm(url: str, key: str, version: str) -> str:
    """Deploy the test contract with the rules of a release, for a trial swarm; return its address.

    The sender gets every role. Raises what `contracts.deploy` raises.
    """
    return deploy_artifact(url, key, ARTIFACT, VERSIONS.index(version)).address


class StageManager:
    """One account's hold on one contract's clock."""

    def __init__(self, url: str, key: str, contract: str) -> None:
        self._url, self._key, self._contract = url, key, contract
        self._leaving: tuple[int, int] | None = None

    def place(self) -> tuple[int, int]:
        """Return the present round and stage."""
        functions = contract_at(self._url, self._contract, ARTIFACT).functions
        return int(functions.currentRound().call()), int(functions.currentStage().call())

    def update(self) -> None:
        """Open the next stage. Raises what `contracts.send` raises.

        Called again after an error, it sends nothing where the transaction of the last time arrived after all.
        """
        place = self.place()
        if self._leaving in (None, place):
            self._leaving = place
            send(self._url, self._key, self._contract, "updateStageAndRound", artifact=ARTIFACT)
        self._leaving = None
        click.echo("left round {} stage {}".format(*place))


def reason(error: Exception) -> str:
    """Return the contract's own word for an error, else its kind: texts of HTTP errors hold URLs with keys."""
    revert = ABI.revert(getattr(error, "data", None))
    return revert.name if revert else type(error).__name__


def next_tick(due: float, now: float, seconds: float) -> float:
    """Return when the stage after the one that was due at `due` is due; ticks that were missed are not made up for."""
    return due + seconds if now < due + seconds else now + seconds


def keep_time(
    tick: Callable[[], None],
    seconds: float,
    updates: int,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Call `tick` every `seconds`, first after a whole stage; after a failure sooner. 0 `updates` is for ever."""
    due, done = clock() + seconds, 0
    while not updates or done < updates:
        sleep(max(0.0, due - clock()))
        try:
            tick()
        except Exception as error:  # noqa: BLE001 - task boundary: the clock must go on when the chain is back
            click.echo(f"not updated: {reason(error)}; again in {PAUSE:.0f} s", err=True)
            due = clock() + PAUSE
        else:
            done += 1
            due = next_tick(due, clock(), seconds)


def read_key(path: Path | None) -> str:
    """Return the account's key. Raises `click.ClickException` with what to do where there is none."""
    try:
        key = path.read_text().strip() if path else os.environ.get(KEY_VARIABLE, "")
    except OSError as error:
        raise click.ClickException(f"cannot read {path}: {error.strerror}; check path and owner") from error
    if not key:
        raise click.ClickException(f"no key: name its file by --key-file, or set {KEY_VARIABLE}")
    return key


@click.command()
@click.option("--url", default="http://127.0.0.1:8545", help="RPC endpoint.")
@click.option("--contract", default="", help="The contract.")
@click.option(
    "--deploy", "version", type=click.Choice(VERSIONS), help="Deploy a test contract of this release instead."
)
@click.option("--seconds", type=click.FloatRange(min=1), required=True, help="Length of a stage.")
@click.option("--key-file", type=click.Path(path_type=Path), help=f"File with the key; else {KEY_VARIABLE}.")
@click.option("--updates", type=int, default=0, help="End after this many stages; 0 is never.")
def main(url: str, contract: str, version: str | None, seconds: float, key_file: Path | None, updates: int) -> None:
    """Open the next stage of an RL Swarm contract, again and again."""
    key = read_key(key_file)
    if not version and not contract:
        raise click.ClickException("no contract: name one by --contract, or get one by --deploy")
    if version:
        contract = deploy_rl_swarm(url, key, version)
        click.echo(f"contract {contract}")
    keep_time(StageManager(url, key, contract).update, seconds, updates)


if __name__ == "__main__":
    main()
