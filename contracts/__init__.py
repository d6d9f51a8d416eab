"""The coordinator contract: its committed artifact, and typed access for tools, tests and organisers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from web3 import Web3
    from web3.contract import Contract
    from web3.contract.contract import ContractConstructor, ContractFunction
    from web3.types import TxReceipt

_HERE = Path(__file__).parent

VOTING_MODES = ("sealed", "open")
"""The contract's `votingMode` is the index into this."""

GAS_MARGIN = 125
"""Percent of the estimate: the block that mines a call may ask more of it than the one it was estimated on."""


class Artifact(msgspec.Struct, frozen=True):
    """What the compiler made, and from what.

    `source_sha256` is over the bytes of the Solidity file and those it imports, in the order of their names;
    `runtime_bytes` is the size that EIP-170 limits to 24,576.
    """

    name: str
    compiler: str
    settings: dict[str, Any]
    source_sha256: str
    runtime_bytes: int
    bytecode: str
    abi: list[dict[str, Any]]


class Parameters(msgspec.Struct, frozen=True, kw_only=True):
    """The constructor's arguments. `anchor_blocks` None takes half of the last stage, at `block_seconds` a block.

    `quorum` is the percentage of last round's voters whose reports close a stage early, at the earliest `earliest`
    seconds after it opened; both 0 for never.
    """

    stage_seconds: tuple[int, ...]
    manifest_digest: bytes
    voting_mode: str = "sealed"
    winners: int = 5
    anchor_blocks: int | None = None
    block_seconds: float = 12.0
    quorum: int = 0
    earliest: int = 0

    def anchor(self) -> int:
        """Return the number of blocks, 1 to 255, from a last stage's opening to the one that makes the next seed."""
        if self.anchor_blocks is not None:
            return self.anchor_blocks
        return max(1, min(255, int(self.stage_seconds[-1] / 2 / self.block_seconds)))

    def values(self) -> list[Any]:
        """Return what the constructor takes, in its order."""
        return [
            list(self.stage_seconds),
            self.manifest_digest,
            VOTING_MODES.index(self.voting_mode),
            self.winners,
            self.anchor(),
            self.quorum,
            self.earliest,
        ]


class DeployedContract(msgspec.Struct, frozen=True, kw_only=True):
    """A deployed coordinator. The block's hash tells it from one at the same address on another chain."""

    address: str
    block_hash: bytes
    block_number: int


def load_artifact(name: str = "SwarmCoordinator") -> Artifact:
    """Return a committed artifact."""
    return msgspec.json.decode((_HERE / f"{name}.json").read_bytes(), type=Artifact)


def creation_code(parameters: Parameters) -> str:
    """Return the data ("0x...") of the transaction that creates a coordinator."""
    from eth_abi.abi import encode

    artifact = load_artifact()
    inputs = next(entry["inputs"] for entry in artifact.abi if entry["type"] == "constructor")
    return artifact.bytecode + encode([one["type"] for one in inputs], parameters.values()).hex()


def deploy(url: str, key: str, parameters: Parameters) -> DeployedContract:
    """Deploy a coordinator over `url` (http or ws), paid by the private key `key`, which becomes its organiser.

    Raises what web3 raises, RuntimeError where it was mined and failed: nothing is retried.
    """
    return deploy_artifact(url, key, "SwarmCoordinator", *parameters.values())


def deploy_artifact(url: str, key: str, name: str, *arguments: object) -> DeployedContract:
    """Deploy any committed artifact with its constructor's arguments. Raises as `deploy` does."""
    artifact = load_artifact(name)
    web3 = _connect(url)
    call = web3.eth.contract(abi=artifact.abi, bytecode=artifact.bytecode).constructor(*arguments)
    receipt = _transact(web3, key, call)
    return DeployedContract(
        address=str(receipt["contractAddress"]).lower(),
        block_hash=bytes(receipt["blockHash"]),
        block_number=int(receipt["blockNumber"]),
    )


def contract_at(url: str, address: str, artifact: str = "SwarmCoordinator") -> Contract:
    """Return a web3 contract object for tools and tests: reading events, calling views, organiser's transactions."""
    web3 = _connect(url)
    return web3.eth.contract(address=web3.to_checksum_address(address), abi=load_artifact(artifact).abi)


def send(
    url: str, key: str, address: str, function: str, *arguments: object, artifact: str = "SwarmCoordinator"
) -> str:
    """Send one transaction to a contract, wait until it is mined, return its hash ("0x...").

    Raises web3's `ContractCustomError` where the contract refuses, RuntimeError where it was mined and failed.
    """
    contract = contract_at(url, address, artifact)
    receipt = _transact(contract.w3, key, contract.get_function_by_name(function)(*arguments))
    return str(receipt["transactionHash"].to_0x_hex())


def _transact(web3: Web3, key: str, call: ContractFunction | ContractConstructor) -> TxReceipt:
    account = web3.eth.account.from_key(key)
    gas = call.estimate_gas({"from": account.address}) * GAS_MARGIN // 100
    nonce = web3.eth.get_transaction_count(account.address, "pending")
    built = call.build_transaction({"from": account.address, "nonce": nonce, "gas": gas})
    sent = web3.eth.send_raw_transaction(account.sign_transaction(built).raw_transaction)
    receipt = web3.eth.wait_for_transaction_receipt(sent, timeout=120, poll_latency=0.05)
    if receipt["status"] != 1:
        raise RuntimeError(
            f"the transaction {sent.to_0x_hex()} was mined and failed; the chain's state moved meanwhile"
        )
    return receipt


def _connect(url: str) -> Web3:
    """Return a client of an endpoint. web3 has no synchronous WebSocket, so ws:// is asked over http://."""
    # web3 takes 70 MB. Nodes import this package for the ABI alone, so that only who deploys or asks pays for it.
    from web3 import HTTPProvider, Web3

    return Web3(HTTPProvider("http" + url.removeprefix("ws") if url.startswith("ws") else url))
