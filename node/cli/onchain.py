"""The commands' reads and transactions of the coordinator contract, with the names of its functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from node.chain.rpc.client import RpcError
from node.config import ChainSettings
from node.exits import Exit, Refusal
from node.identity import NodeKey
from node.identity.key_owner_cases import OwnershipFacts
from node.logs import redacted
from protocols.identifiers import Address
from protocols.signed_messages import SignedDelegation
from protocols.typed_data import Domain, Revocation

VALID = bytes.fromhex("1626ba7e")
"""A contract wallet's answer to a valid signature (ERC-1271)."""
WALLET_ABI: list[dict[str, Any]] = [
    {
        "type": "function",
        "name": "isValidSignature",
        "stateMutability": "view",
        "inputs": [{"name": "hash", "type": "bytes32"}, {"name": "signature", "type": "bytes"}],
        "outputs": [{"name": "", "type": "bytes4"}],
    }
]


class Registration(msgspec.Struct, frozen=True):
    """A node's entry in the contract; `owner` is None if there is none.

    The node counts from round `since` until `expiry` (chain seconds). `serial` is that of its last order
    (milliseconds).
    """

    owner: Address | None
    since: int
    expiry: int
    serial: int


class CallFailedError(Exception):
    """A call through web3 failed; `error` is what it raised."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


def _called(question: Callable[[], Any]) -> Any:
    """Return what a call through web3 gives. Raises `CallFailedError`."""
    try:
        return question()
    # Library boundary: web3 raises its own errors, those of requests and eth_abi, and plain ones.
    except Exception as error:
        raise CallFailedError(error) from error


class Chain:
    """A working endpoint, and the coordinator on it. Every method raises `Refusal` on failure."""

    def __init__(self, url: str, contract: Address) -> None:
        """Find the coordinator. Raises `CallFailedError` if there is none."""
        from contracts import contract_at

        self._url, self.contract = url, contract
        self._coordinator = _called(lambda: contract_at(url, contract))
        self._web3 = self._coordinator.w3
        self.domain = self._domain()

    def _domain(self) -> Domain:
        """Return the deployment's EIP-712 domain (EIP-5267)."""
        _, _, _, chain_id, contract, salt, _ = _called(lambda: self._coordinator.functions.eip712Domain().call())
        return Domain(chain_id, str(contract).lower(), bytes(salt))

    @property
    def deployed(self) -> int:
        """The block that created the contract."""
        return int(self._ask(lambda: self._coordinator.functions.deployedBlock().call()))

    def round(self) -> int:
        """Return the contract's current round."""
        return int(self._ask(lambda: self._coordinator.functions.current().call())[0])

    def request(self, method: str, *parameters: object) -> Any:
        """Return the result of a JSON-RPC request. Raises `RpcError` if the endpoint refuses it."""
        from requests import HTTPError
        from web3.types import RPCEndpoint

        try:
            answer = _called(lambda: self._web3.provider.make_request(RPCEndpoint(method), list(parameters)))
        except CallFailedError as failed:
            if isinstance(failed.error, HTTPError):
                status = failed.error.response.status_code if failed.error.response is not None else 0
                raise RpcError(status, "refused over HTTP") from failed
            raise self._refusal(failed.error) from failed
        if "error" in answer:
            said: Any = answer["error"]
            raise RpcError(said.get("code", 0), str(said.get("message", said)), said.get("data"))
        return answer["result"]

    def now(self) -> int:
        """Return chain time in seconds."""
        return int(self._ask(lambda: self._web3.eth.get_block("latest")["timestamp"]))

    def balance(self, account: Address) -> int:
        """Return an account's balance in wei."""
        return int(self._ask(lambda: self._web3.eth.get_balance(self._web3.to_checksum_address(account))))

    def entry(self, node: Address) -> Registration:
        """Return a node's entry."""
        name = self._web3.to_checksum_address(node)
        owner, since, expiry, serial = self._ask(lambda: self._coordinator.functions.nodes(name).call())
        known = int(owner, 16) != 0
        return Registration(str(owner).lower() if known else None, since, expiry, serial)

    def others(self, owner: Address, node: Address) -> int:
        """Return how many nodes besides `node` were ever registered for an owner; 0 if the endpoint keeps no log
        of that length."""
        filters = {"owner": self._web3.to_checksum_address(owner)}
        try:
            first = _called(lambda: self._coordinator.functions.deployedBlock().call())
            found = _called(
                lambda: self._coordinator.events.PeerRegistered().get_logs(from_block=first, argument_filters=filters)
            )
        except CallFailedError:  # endpoints refuse long ranges in many ways; the count is for the operator only
            return 0
        return len({str(each["args"]["node"]).lower() for each in found} - {node})

    def facts(self, node: Address, claimed: Address | None) -> OwnershipFacts:
        """Return the facts that decide which of the four cases a node is in; `claimed` is the local owner."""
        registered = self.entry(node).owner
        owner = claimed or registered
        return OwnershipFacts(
            node=node, claimed=claimed, registered=registered, siblings=self.others(owner, node) if owner else 0
        )

    def wallet_accepts(self, owner: Address, digest: bytes, signature: bytes) -> bool:
        """Return True if `owner` is a contract wallet that accepts a signature as its own (ERC-1271)."""
        address = self._web3.to_checksum_address(owner)
        if not self._ask(lambda: self._web3.eth.get_code(address)):
            return False
        wallet = self._web3.eth.contract(address=address, abi=WALLET_ABI)
        try:
            return bytes(_called(lambda: wallet.functions.isValidSignature(digest, signature).call())) == VALID
        except CallFailedError:  # a foreign contract: whatever it does but accept is a refusal
            return False

    def payer(self, candidates: Sequence[NodeKey]) -> NodeKey | None:
        """Return the first key that has money for gas."""
        return next((key for key in candidates if self.balance(key.address)), None)

    def register(self, payer: NodeKey, signed: SignedDelegation) -> str:
        """Submit a delegation of a new or a registered node; return the transaction's hash."""
        said = signed.delegation
        delegation = (self._named(said.owner), self._named(said.node), said.serial, said.expiry)
        return self._send(payer, "register", (delegation, signed.owner_signature, signed.node_signature))

    def revoke(self, payer: NodeKey, said: Revocation, owner_signature: bytes) -> str:
        """Submit a revocation; return the transaction's hash."""
        revocation = (self._named(said.owner), self._named(said.node), said.serial)
        return self._send(payer, "revoke", (revocation, owner_signature))

    def _named(self, address: Address) -> str:
        return str(self._web3.to_checksum_address(address))

    def _send(self, payer: NodeKey, function: str, argument: tuple[Any, ...]) -> str:
        from contracts import send

        return str(self._ask(lambda: send(self._url, payer.secret.hex(), self.contract, function, argument)))

    def _ask(self, question: Any) -> Any:
        try:
            return _called(question)
        except CallFailedError as failed:
            raise self._refusal(failed.error) from failed

    def _refusal(self, error: Exception) -> Refusal:
        return Refusal(Exit.CHAIN, f"{self._refused(error)} ({redacted(self._url)}); try again later")

    def _refused(self, error: Exception) -> str:
        """Return why a call failed: the contract's error by name, else the endpoint's message."""
        from node.chain.contract.swarm import ABI

        revert = ABI.revert(getattr(error, "data", None))
        if revert is None:
            said = str(error).partition("\n")[0] or type(error).__name__
            return f"the chain did not answer: {redacted(said)}"
        given = ", ".join(f"{name} {value}" for name, value in revert.fields.items())
        return f"the contract refuses: {revert.name}{f' ({given})' if given else ''}"


def connect(settings: ChainSettings) -> Chain:
    """Return the first endpoint with the coordinator. Raises `Refusal` with the error of each endpoint."""
    if not settings.contract:
        raise Refusal(
            Exit.CONFIG, "no coordinator contract is configured (chain.contract); run `swarm init`, or give --contract"
        )
    reasons = []
    for url in settings.urls:
        try:
            return Chain(url, settings.contract.lower())
        except CallFailedError as failed:
            reasons.append(f"{redacted(url)}: {type(failed.error).__name__}")
    raise Refusal(
        Exit.CHAIN,
        f"no coordinator answers at {settings.contract} ({'; '.join(reasons)}); check [chain] contract and urls",
    )
