"""The wallet page in a real browser, with a wallet that really signs."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import trio
from eth_account import Account
from eth_account.messages import encode_typed_data

from node.identity.browser import ask_wallet
from node.identity.key import NodeKey
from node.identity.owner_orders import OwnerOrder, domain_of, message_of, order_of, owner_signed
from protocols.typed_data import Delegation, Domain
from tests.browser.chromium import Tab, open_tab, program

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(program() is None, reason="no Chromium is installed; install the package chromium"),
]

SECONDS = 60.0
OWNER = Account.from_key(bytes([7]) * 32)
DOMAIN = Domain(31_337, "0x" + "c0" * 20, b"s" * 32)
NODE = NodeKey(bytes([1]) * 32)
REQUEST = order_of(DOMAIN, Delegation("", NODE.address, 1_700_000_000_000, 1_800_000_000))

WALLET = """
(() => {
  const waiting = new Map();
  let count = 0;
  window.walletSays = (id, error, result) => {
    const { resolve, reject } = waiting.get(id);
    waiting.delete(id);
    error ? reject(Object.assign(new Error(error.message), error)) : resolve(result);
  };
  const provider = { request: asked => new Promise((resolve, reject) => {
    waiting.set(++count, { resolve, reject });
    window.walletAsked(JSON.stringify({ id: count, ...asked }));
  }) };
  const detail = Object.freeze({ info: { uuid: "u-1", name: "Test wallet", rdns: "org.test", icon: "" }, provider });
  const announce = () => window.dispatchEvent(new CustomEvent("eip6963:announceProvider", { detail }));
  window.addEventListener("eip6963:requestProvider", announce);
  announce();
})();
"""


class Wallet:
    """What is behind the injected provider: a key, a chain, and a person who may decline."""

    def __init__(self, tab: Tab) -> None:
        self.tab = tab
        self.chain = 1
        self.declines = False
        self.asked: list[str] = []

    async def answer(self, payload: str) -> None:
        """Answer a request of the page as EIP-1193 has it."""
        asked = json.loads(payload)
        self.asked.append(asked["method"])
        error, result = self._answered(asked["method"], asked.get("params"))
        await self.tab.evaluate(f"walletSays({asked['id']}, {json.dumps(error)}, {json.dumps(result)})")

    def _answered(self, method: str, parameters: list[object] | None) -> tuple[object, object]:
        match method, parameters:
            case "eth_requestAccounts", _:
                return None, [OWNER.address]
            case "eth_chainId", _:
                return None, hex(self.chain)
            case "wallet_switchEthereumChain", [{"chainId": str(wanted)}]:
                self.chain = int(wanted, 16)
                return None, None
            case "eth_signTypedData_v4", [_, str(typed)]:
                if self.declines:
                    return {"code": 4001, "message": "User rejected the request."}, None
                return None, self._signature(json.loads(typed))
            case _:
                return {"code": -32601, "message": f"{method} is not known"}, None

    def _signature(self, typed: dict[str, object]) -> str:
        signed = OWNER.sign_message(encode_typed_data(full_message=typed))
        return "0x" + bytes(signed.signature).hex()


class Answer:
    """The signed order, once it came."""

    def __init__(self) -> None:
        self.came = trio.Event()
        self.order = REQUEST


@asynccontextmanager
async def page(tmp_path: Path) -> AsyncIterator[tuple[Tab, Wallet, str, Answer]]:
    """Serve the page and open a browser with the wallet; the answer gets the signed order."""
    answer = Answer()
    urls, opened = trio.open_memory_channel[str](1)

    async def judge(order: OwnerOrder) -> str:
        good = owner_signed(DOMAIN, message_of(order), bytes.fromhex(order.signature))
        return "" if good else "the owner did not sign this"

    async def serve() -> None:
        answer.order = await ask_wallet(REQUEST, judge, "Node 0x… is mine", urls.send_nowait)
        answer.came.set()

    with trio.fail_after(SECONDS):
        async with open_tab(tmp_path / "profile") as tab, trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            url = await opened.receive()
            wallet = Wallet(tab)
            await tab.expose("walletAsked", wallet.answer)
            await tab.command("Page.addScriptToEvaluateOnNewDocument", source=WALLET)
            yield tab, wallet, url, answer
            nursery.cancel_scope.cancel()


async def test_the_owner_signs_in_the_browser(tmp_path: Path) -> None:
    """Declined first, then signed with the right chain chosen: the node has the owner's signature, the page says so."""
    async with page(tmp_path) as (tab, wallet, url, answer):
        await tab.command("Page.navigate", url=url)
        await tab.until("document.querySelector('button')?.textContent === 'Sign with Test wallet'")
        assert await tab.evaluate("document.getElementById('about').textContent") == "Node 0x… is mine"
        wallet.declines = True
        await tab.evaluate("document.querySelector('button').click()")
        await tab.until("document.getElementById('state').textContent.startsWith('You declined')")
        assert not answer.came.is_set()
        wallet.declines = False
        await tab.evaluate("document.querySelector('button').click()")
        await tab.until("document.getElementById('state').dataset.kind === 'good'")
        await answer.came.wait()
        order = answer.order
        assert (order.owner, wallet.chain, order.expiry) == (OWNER.address.lower(), 31_337, 1_800_000_000)
        assert domain_of(order) == DOMAIN
        assert owner_signed(DOMAIN, message_of(order), bytes.fromhex(order.signature))
        resources = await tab.evaluate("performance.getEntriesByType('resource').map(each => each.name).join(' ')")
        assert all(name.startswith(url.partition("#")[0]) for name in resources.split())
        assert await tab.evaluate("location.hash") == ""


async def test_nobody_else_gets_anything_from_the_page(tmp_path: Path) -> None:
    """Without the token, from another origin, under another name or with a stranger's signature: refused, and the
    operator's own page still works."""
    async with page(tmp_path) as (tab, _wallet, url, answer):
        base, _, token = url.partition("#")
        own = {"origin": base.rstrip("/"), "x-swarm-token": token}
        refused: tuple[dict[str, str], ...] = (
            {},
            {"origin": base.rstrip("/")},
            own | {"x-swarm-token": token[:-1] + "!"},
            own | {"origin": "http://evil.example"},
            own | {"host": "evil.example"},
        )
        account = {"account": OWNER.address, "signature": "0x" + "11" * 65}
        async with httpx.AsyncClient(base_url=base, trust_env=False) as client:
            for headers in refused:
                for path in ("/order", "/typed-data", "/answer"):
                    assert (await client.post(path, headers=headers, json=account)).status_code in (403, 421)
            assert (await client.get("/", headers={"host": "evil.example"})).status_code == 421
            assert (await client.post("/answer", headers=own, json=account)).status_code == 422
            assert (await client.post("/answer", headers=own, content=b"x" * 100_000)).status_code == 400
            shown = await client.get("/")
        assert token not in shown.text
        assert "default-src 'none'" in shown.headers["content-security-policy"]
        assert not answer.came.is_set()
        await tab.command("Page.navigate", url=url)
        await tab.until("!!document.querySelector('button')")
