"""A local EVM chain for demos and tests: anvil, found or installed, started, stopped, frozen and restarted."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from eth_account import Account

from node.child_process import child_environment, end_with
from node.localnet.npm_tools import ToolMissingError, installed_packages

NPM_PROJECT = Path(__file__).parent
"""The folder whose npm lock names anvil."""
MNEMONIC = "test test test test test test test test test test test junk"
START_SECONDS = 15.0


class ChainCallError(RuntimeError):
    """The local chain refused a request; `data` holds revert data, if any."""

    def __init__(self, text: str, data: object = None) -> None:
        super().__init__(text)
        self.data = data


def find_or_install_anvil(cache_dir: Path | None = None) -> Path:
    """Return an anvil program: from PATH, from the cache, or newly installed there as an npm package.

    Raises `ToolMissingError`, which says what to do, if none of that works.
    """
    on_path = shutil.which("anvil")
    if on_path:
        return Path(on_path)
    home = installed_packages(NPM_PROJECT, cache_dir)
    found = sorted(home.glob("node_modules/@foundry-rs/anvil-*/bin/anvil"))
    if not found:
        raise ToolMissingError(
            "anvil's npm package has no binary for this system; install anvil (foundry) and put it on PATH"
        )
    return found[0]


def developer_keys(count: int) -> list[str]:
    """Return the first `count` private keys ("0x...") that anvil funds. They are public: for local chains only."""
    Account.enable_unaudited_hdwallet_features()
    paths = (f"m/44'/60'/0'/0/{index}" for index in range(count))
    return ["0x" + bytes(Account.from_mnemonic(MNEMONIC, account_path=path).key).hex() for path in paths]


class LocalChain:
    """One anvil process on a free loopback port. Use it as a context manager, or call `start` and `stop`.

    With `block_seconds`, blocks are mined at that interval and at every transaction; with None only at transactions.
    `state` names a file that keeps the chain over a restart; `host` is the address that anvil binds. Start it from a
    thread that lives as long as the chain is needed: the kernel ends anvil with the thread that started it.
    """

    def __init__(
        self,
        *,
        block_seconds: int | None = 1,
        state: Path | None = None,
        accounts: int = 10,
        cache_dir: Path | None = None,
        arguments: tuple[str, ...] = (),
        host: str = "127.0.0.1",
    ) -> None:
        self.block_seconds = block_seconds
        self.state = state
        self.accounts = accounts
        self.arguments = arguments
        self.host = host
        self.cache_dir = cache_dir
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The WebSocket URL."""
        return f"ws://127.0.0.1:{self.port}"

    @property
    def http_url(self) -> str:
        """The HTTP URL, on the same port."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def keys(self) -> list[str]:
        """The private keys of the funded accounts."""
        return developer_keys(self.accounts)

    @property
    def pid(self) -> int:
        """The process id; 0 while it is not running."""
        return self._process.pid if self._process else 0

    def __enter__(self) -> LocalChain:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start anvil and wait until it answers. Raises `ToolMissingError`, or RuntimeError if it does not answer."""
        program = find_or_install_anvil(self.cache_dir)
        self._process = subprocess.Popen(
            [str(program), *self._options()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=child_environment(os.environ, ("NODE_*",)),
            preexec_fn=partial(end_with, os.getpid()),
        )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"anvil does not answer on port {self.port}; run `{program} --help` to see why")
            time.sleep(0.02)

    def stop(self) -> None:
        """Stop anvil gracefully; with `state` it first writes the chain to disk."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill anvil; unsaved state is lost."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Start again on the same port."""
        self.stop()
        self.start()

    def freeze(self) -> None:
        """Freeze anvil (SIGSTOP): connections stay open, nothing answers."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Continue after `freeze`."""
        self._signal(signal.SIGCONT)

    def call(self, method: str, *parameters: object) -> Any:
        """Make one JSON-RPC request over HTTP. Raises `ChainCallError` with the chain's error message."""
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters}).encode()
        request = urllib.request.Request(self.http_url, body, {"content-type": "application/json"})  # noqa: S310
        with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310 - always our own loopback URL
            answer = json.load(response)
        if answer.get("error"):
            error = answer["error"]
            raise ChainCallError(f"{method}: {error.get('message')}", error.get("data"))
        return answer.get("result")

    def fund(self, address: str, ether: int = 100) -> None:
        """Set an account's balance."""
        self.call("anvil_setBalance", address, hex(ether * 10**18))

    def _options(self) -> list[str]:
        options = ["--host", self.host, "--port", str(self.port), "--accounts", str(self.accounts), "--silent"]
        options += ["--mnemonic", MNEMONIC, "--preserve-historical-states"]
        if self.block_seconds is not None:
            options += ["--block-time", str(self.block_seconds), "--mixed-mining"]
        if self.state is not None:
            options += ["--state", str(self.state), "--state-interval", "1"]
        return [*options, *self.arguments]

    def _answers(self) -> bool:
        try:
            return bool(self.call("eth_chainId"))
        except (urllib.error.URLError, OSError, ValueError):
            return False

    def _signal(self, number: signal.Signals) -> None:
        if self._process and self._process.poll() is None:
            self._process.send_signal(number)

    def _end(self, number: signal.Signals) -> None:
        self._signal(number)
        if self._process:
            try:
                self._process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._process = None


def free_port() -> int:
    """Return a free loopback TCP port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
