"""A headless Chromium of its own profile, driven over the DevTools protocol. Nothing but what the tests need."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio
from trio_websocket import WebSocketConnection, open_websocket_url

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
START_SECONDS = 30.0
PORT_FILE = "DevToolsActivePort"


def program() -> str | None:
    """Return the browser's program, None where none is installed."""
    return next((found for name in PROGRAMS if (found := shutil.which(name))), None)


class Tab:
    """A page. `exposed` functions can be called from it and answer asynchronously."""

    def __init__(self, socket: WebSocketConnection, session: str) -> None:
        self._socket, self._session = socket, session
        self._number = 0
        self._answers: dict[int, dict[str, Any]] = {}
        self._arrived = trio.Condition()
        self._exposed: dict[str, Callable[[str], Awaitable[None]]] = {}

    async def command(self, method: str, **parameters: object) -> dict[str, Any]:
        """Send a command; return its result. Raises RuntimeError with the browser's own words."""
        self._number += 1
        number = self._number
        message = {"id": number, "method": method, "params": parameters, "sessionId": self._session}
        await self._socket.send_message(json.dumps(message))
        async with self._arrived:
            while number not in self._answers:
                await self._arrived.wait()
        answer = self._answers.pop(number)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        result: dict[str, Any] = answer["result"]
        return result

    async def expose(self, name: str, function: Callable[[str], Awaitable[None]]) -> None:
        """Let the page call `window.NAME(text)`."""
        self._exposed[name] = function
        await self.command("Runtime.addBinding", name=name)

    async def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression; a promise is waited for."""
        answer = await self.command("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(str(answer["exceptionDetails"]))
        return answer["result"].get("value")

    async def until(self, expression: str) -> None:
        """Wait until a JavaScript expression is true."""
        while True:
            if await self.evaluate(expression):
                return
            await trio.sleep(0.02)

    async def listen(self, nursery: trio.Nursery) -> None:
        """Take in what the browser says, for ever."""
        while True:
            message = json.loads(await self._socket.get_message())
            if "id" in message:
                self._answers[message["id"]] = message
                async with self._arrived:
                    self._arrived.notify_all()
            elif message.get("method") == "Runtime.bindingCalled":
                called = message["params"]
                nursery.start_soon(self._exposed[called["name"]], called["payload"])


@asynccontextmanager
async def open_tab(profile: Path) -> AsyncIterator[Tab]:
    """Start a browser with an empty profile and give its one page; ends both."""
    arguments = [
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
        "--disable-background-networking", "--disable-extensions", "--remote-debugging-port=0",
        f"--user-data-dir={profile}", "about:blank",
    ]  # fmt: skip
    name = program()
    assert name is not None
    quiet = subprocess.DEVNULL
    browser = await trio.lowlevel.open_process([name, *arguments], stdout=quiet, stderr=quiet)
    try:
        with trio.fail_after(START_SECONDS):
            url = await _endpoint(trio.Path(profile / PORT_FILE))
        async with open_websocket_url(url) as socket, trio.open_nursery() as nursery:
            tab = Tab(socket, await _attached(socket))
            nursery.start_soon(tab.listen, nursery)
            for domain in ("Page", "Runtime", "Network"):
                await tab.command(f"{domain}.enable")
            yield tab
            nursery.cancel_scope.cancel()
    finally:
        browser.terminate()
        with trio.CancelScope(shield=True):
            await browser.wait()


async def _endpoint(file: trio.Path) -> str:
    while True:
        if await file.exists() and len(lines := (await file.read_text()).splitlines()) == 2:
            return f"ws://127.0.0.1:{lines[0]}{lines[1]}"
        await trio.sleep(0.05)


async def _attached(socket: WebSocketConnection) -> str:
    """Return the session of the page that is open."""

    async def ask(number: int, method: str, **parameters: object) -> dict[str, Any]:
        await socket.send_message(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(await socket.get_message())
            if answer.get("id") == number:
                result: dict[str, Any] = answer["result"]
                return result

    targets = (await ask(1_000_001, "Target.getTargets"))["targetInfos"]
    page = next(target for target in targets if target["type"] == "page")
    attached = await ask(1_000_002, "Target.attachToTarget", targetId=page["targetId"], flatten=True)
    return str(attached["sessionId"])
