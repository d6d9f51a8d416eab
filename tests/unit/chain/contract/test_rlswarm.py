"""RL Swarm's coordinator in the node's words: peer ids, clock, calls, refusals. No chain."""

from __future__ import annotations

import itertools
from itertools import pairwise
from typing import Any

import pytest
from eth_abi.abi import encode
from hypothesis import given, settings
from hypothesis import strategies as st

from node.chain.contract.abi import Abi, Revert
from node.chain.contract.manifest_check import disagreement
from node.chain.contract.rlswarm import REWARD_SCALE, RLSwarmBinding
from node.chain.contract.rlswarm_clock import DURATIONS, RLSwarmClock, StageOpening, estimated_seconds, round_seed
from node.chain.contract.rlswarm_ledger import ABI, PEERS, ROUNDS, SIGNED, STAGES, UNSIGNED, RLSwarmLedger
from node.chain.contract.rlswarm_peers import can_dial
from node.chain.contract.swarm import Voter
from node.chain.rpc.blocks import BlockAdded, BlockHead, BlockUndone, Log, RangeFilled
from node.chain.stage_tracker import StageTracker
from node.identity import NodeKey, base58
from node.identity.local_peer import address_of_peer_id
from node.machine.commands import AdvanceStage, CastVote, CommitVote, RegisterNode, ReportReward
from node.machine.inputs import PeerRegistered, StageOpened
from protocols.deployment import CoordinatorFacts
from protocols.identifiers import keccak256
from protocols.manifest import Manifest, StageSpec, VotingSpec, manifest_digest

CONTRACT = "0x" + "c0" * 20
ME, OTHER = NodeKey(b"\1" * 32), NodeKey(b"\2" * 32)
VOTER = Voter(ME.address, b"s" * 32, b"w" * 32)
RSA = "QmQ1cyNkEkEKajPmwRh4NwgpCjun8rVkmtAv8ttxXStKtA"
SEED = b"s" * 32


def head(number: int, *, at: int | None = None, fork: bytes = b"") -> BlockHead:
    name = "0x" + keccak256(b"block" + fork + number.to_bytes(8, "big")).hex()
    return BlockHead(number, name, "0x", number * 10 if at is None else at, 0, 0)


def word(value: int) -> str:
    return "0x" + value.to_bytes(32, "big").hex()


places = itertools.count()


def a_log(topics: list[str], data: str = "0x") -> Log:
    """A log that stands behind those made before it."""
    return {"topics": topics, "data": data, "blockNumber": "0x1", "logIndex": hex(next(places))}


def round_log(number: int) -> Log:
    return a_log([ROUNDS, word(number)])


def stage_log(number: int, stage: int) -> Log:
    return a_log([STAGES, word(number)], word(stage))


def peer_log(peer_id: str | bytes, account: str) -> Log:
    kind = "bytes" if isinstance(peer_id, bytes) else "string"
    return a_log([PEERS, word(int(account, 16))], "0x" + encode([kind], [peer_id]).hex())


def a_binding() -> RLSwarmBinding:
    return RLSwarmBinding(CONTRACT, ME.address, ME.peer_id, [60, 60, 60])


# --- peer ids ---------------------------------------------------------------------------------------------------------


@given(st.binary(min_size=32, max_size=32).filter(lambda secret: 0 < int.from_bytes(secret, "big") < 2**255))
def test_a_secp256k1_peer_is_known_by_its_keys_own_address(secret: bytes) -> None:
    """The key stands in the peer id, so that announcements signed by it are this peer's."""
    key = NodeKey(secret)
    assert address_of_peer_id(key.peer_id) == key.address


@given(st.binary(min_size=32, max_size=32))
def test_a_hashed_peer_id_gets_a_stable_address_of_its_own(digest: bytes) -> None:
    """RSA's Qm... ids hold no key: they get a stand-in, the same on every node and another for every id."""
    peer_id, other = (base58.encode(b"\x12\x20" + bytes(b ^ mask for b in digest)) for mask in (0, 1))
    assert peer_id.startswith("Qm")
    assert address_of_peer_id(peer_id) == address_of_peer_id(peer_id) != address_of_peer_id(other)


def test_the_stand_in_address_of_an_rsa_peer_never_changes() -> None:
    """A check value: other programs that tally this swarm derive it from the documentation."""
    expected = keccak256(b"swarm/rl-swarm/peer/1" + base58.decode(RSA))[12:].hex()
    assert address_of_peer_id(RSA) == "0x" + expected == "0xd61c5b9b5025095c58b1bfff96906608abf0e957"


@settings(max_examples=50)
@given(st.text(max_size=80) | st.text("123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz", max_size=60))
def test_whatever_is_registered_is_an_address_or_refused(text: str) -> None:
    """Anybody may register any text: it never does worse than raise ValueError."""
    try:
        found = address_of_peer_id(text)
    except ValueError:
        return
    assert len(found) == 42


@pytest.mark.parametrize("text", ["", "Qm", RSA[:-1], "1" + RSA, RSA + "1", ME.peer_id + "1", "0OIl", "1" * 128])
def test_what_only_resembles_a_peer_id_is_none(text: str) -> None:
    """A longer or cut id would be a second name for a peer."""
    with pytest.raises(ValueError):
        address_of_peer_id(text)


@pytest.mark.parametrize(
    ("text", "dialable"),
    [
        (f"/ip4/192.0.2.1/tcp/30011/p2p/{ME.peer_id}", True),
        (f"/dns4/boot.example/tcp/443/p2p/{RSA}", True),
        (f"/ip4/192.0.2.1/udp/30011/quic/p2p/{RSA}", False),
        (f"/ip4/192.0.2.1/tcp/30011/p2p/{RSA}/p2p-circuit", False),
        ("/ip4/192.0.2.1/tcp/30011", False),
        (f"/ip4/192.0.2.1/tcp/0/p2p/{RSA}", False),
        ("/ip4/192.0.2.1/tcp/30011/p2p/QmNobody", False),
        ("", False),
    ],
)
def test_bootnodes_that_cannot_be_dialled_are_told_apart(text: str, dialable: bool) -> None:
    """Only TCP with a whole peer id is dialled."""
    assert can_dial(text) is dialable


# --- clock ------------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 10**6), max_size=20), st.integers(1, 10**6))
def test_a_stage_is_taken_to_last_as_long_as_most_did(steps: list[int], default: int) -> None:
    """The estimate lies between the shortest and the longest of the last stages; the default before any was seen."""
    times = [sum(steps[:count]) for count in range(len(steps) + 1)]
    openings = [StageOpening(0, 0, at, 0, b"") for at in times]
    found = estimated_seconds(openings, default)
    recent = [after - before for before, after in pairwise(times)][-DURATIONS:]
    assert found == default if not recent else max(1, min(recent)) <= found <= max(1, *recent)


def test_one_stage_that_stood_still_does_not_move_the_estimate() -> None:
    """A manager who slept for a day leaves the median where it was."""
    times = [0, 300, 600, 86_400, 86_700, 87_000]
    assert estimated_seconds([StageOpening(0, 0, at, 0, b"") for at in times], 60) == 300


def test_the_seed_is_made_from_contract_round_and_opening_block() -> None:
    """Each of the three makes another seed; nothing else goes in."""
    seed = round_seed(CONTRACT, 7, b"h" * 32)
    assert seed == keccak256(b"swarm/rl-swarm/seed/1" + b"\xc0" * 20 + (7).to_bytes(32, "big") + b"h" * 32)
    others = {round_seed("0x" + "c1" * 20, 7, b"h" * 32), round_seed(CONTRACT, 8, b"h" * 32)}
    assert len(others | {round_seed(CONTRACT, 7, b"i" * 32), seed}) == 4


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=40), st.data())
def test_a_stage_is_the_same_whether_followed_or_read_later(steps: list[int], data: Any) -> None:
    """A node that restarts reads the same seed and deadline as one that was there all along."""
    openings, at = [StageOpening(0, 0, 0, 0, b"0" * 32)], 0
    for number, step in enumerate(steps, 1):
        at += step
        openings.append(StageOpening(*divmod(number, 3), at, number, number.to_bytes(32, "big")))
    followed = RLSwarmClock(CONTRACT, [60] * 3)
    start = data.draw(st.integers(1, len(openings)))
    last = followed.resume(openings[:start])
    for opening in openings[start:]:
        last = followed.opened(opening)
    assert last is not None
    assert RLSwarmClock(CONTRACT, [60] * 3).resume(openings[-DURATIONS - 3 :]) == last


def test_a_new_round_opens_once_by_one_event_or_by_two() -> None:
    """Some releases announce a new round by RoundAdvanced alone, some by StageAdvanced too."""
    for logs in ([round_log(1)], [round_log(1), stage_log(1, 0)], [stage_log(1, 0), round_log(1)]):
        binding = a_binding()
        opened = [one for log in logs if (one := binding.stage_opened(log, head(5)))]
        seed = round_seed(CONTRACT, 1, bytes.fromhex(head(5).hash[2:]))
        assert opened == [StageOpened(1, 0, seed, 50 + 60, 50, 5)]


# --- logs to inputs ---------------------------------------------------------------------------------------------------


def tracked(*updates: Any, confirmations: int = 0) -> tuple[StageTracker, list[Any]]:
    tracker = StageTracker(confirmations, a_binding())
    reported: list[Any] = []
    for update in updates:
        tracker.take(update)
        reported += tracker.news()
    return tracker, reported


def test_a_peer_counts_from_the_round_after_its_registration() -> None:
    """In old ranges and in new blocks alike the round is followed along with the registrations."""
    old = [round_log(4), peer_log(ME.peer_id, ME.address), round_log(5)]
    new = [peer_log(OTHER.peer_id, OTHER.address), round_log(6), peer_log(RSA, OTHER.address)]
    _, reported = tracked(RangeFilled(old, 0, 9), BlockAdded(head(10), new))
    expected = [(ME.address, 5), (OTHER.address, 6), (address_of_peer_id(RSA), 7)]
    assert reported == [PeerRegistered(peer, since) for peer, since in expected]


def test_undone_blocks_take_peers_and_rounds_back() -> None:
    """After a reorg the same registration counts from where the new branch has it."""
    logs = [round_log(4), peer_log(OTHER.peer_id, OTHER.address)]
    tracker, reported = tracked(
        RangeFilled([round_log(3)], 0, 8), BlockAdded(head(9), logs), BlockUndone(head(9), logs[::-1])
    )
    assert reported == [PeerRegistered(OTHER.address, 5)]
    assert tracker.peers == {}
    tracker.take(BlockAdded(head(9, fork=b"x"), logs[1:]))
    assert {peer: one.since_round for peer, one in tracker.peers.items()} == {OTHER.address: 4}


def test_a_history_that_is_read_twice_says_the_same() -> None:
    """An endpoint that fails half way through leaves nobody registered in a later round."""
    logs = [peer_log(ME.peer_id, ME.address), round_log(1), peer_log(OTHER.peer_id, OTHER.address), round_log(2)]
    _, reported = tracked(RangeFilled(logs, 0, 9), RangeFilled(logs[:3], 0, 5), RangeFilled(logs, 0, 9))
    assert set(reported) == {PeerRegistered(ME.address, 1), PeerRegistered(OTHER.address, 2)}


@pytest.mark.parametrize("text", [b"\xff\xfe", "no peer id", "Q" * 5000, ""])
def test_a_registration_that_is_no_peer_id_is_passed_over(text: str | bytes) -> None:
    """What anybody may write into the contract stops nobody."""
    log = peer_log(text, OTHER.address)
    _, reported = tracked(BlockAdded(head(1), [log, peer_log(OTHER.peer_id, OTHER.address)]))
    assert reported == [PeerRegistered(OTHER.address, 1)]


def test_a_log_that_does_not_decode_is_passed_over() -> None:
    """Cut data is nothing, not the end of the node."""
    log = a_log([PEERS, word(1)], "0x00")
    assert tracked(BlockAdded(head(1), [log]), BlockUndone(head(1), [log]))[1] == []


def test_the_own_peer_id_under_another_account_is_not_this_node() -> None:
    """A squatter does not register this node, whatever the event says."""
    _, reported = tracked(BlockAdded(head(1), [peer_log(ME.peer_id, OTHER.address)]))
    assert reported == []


# --- calls and refusals -----------------------------------------------------------------------------------------------


def test_overloads_are_called_by_their_signature() -> None:
    """The bare name of several functions means none of them."""
    assert ABI.call(SIGNED, 1, 2, -3, "x")[:10] != ABI.call(UNSIGNED, 1, 2, 3, "x")[:10]
    with pytest.raises(KeyError):
        ABI.call("submitReward", 1, 2, 3, "x")
    lone = Abi([{"type": "function", "name": "f", "inputs": [{"type": "uint8", "name": "x"}], "outputs": []}])
    assert lone.call("f", 1) == lone.call("f(uint8)", 1)


def test_a_vote_names_peer_ids_in_one_transaction() -> None:
    """Winners go by the text under which they registered."""
    binding = a_binding()
    for peer_id in (OTHER.peer_id, RSA):
        binding.peer_registered(peer_log(peer_id, OTHER.address))
    winners = (OTHER.address, address_of_peer_id(RSA))
    names = [{OTHER.address: OTHER.peer_id}.get(winner, RSA) for winner in sorted(winners)]
    assert binding.call_data(CastVote(7, SEED, winners), VOTER) == ABI.call("submitWinners", 7, names, ME.peer_id)
    assert binding.call_data(RegisterNode(), VOTER) == ABI.call("registerPeer", ME.peer_id)


@pytest.mark.parametrize(("signed", "reward", "points"), [(True, -0.5, -40), (False, -0.5, 0), (False, 0.5, 40)])
def test_rewards_are_sums_in_whole_points(signed: bool, reward: float, points: int) -> None:
    """RL Swarm's nodes report the sum of a stage; below zero only where the contract takes it."""
    binding = a_binding()
    binding.ledger.signed = signed
    expected = ABI.call(SIGNED if signed else UNSIGNED, 3, 1, points, ME.peer_id)
    assert binding.call_data(ReportReward(3, 1, SEED, reward), VOTER) == expected
    assert points in (round(reward * REWARD_SCALE), 0)


@pytest.mark.parametrize(
    ("command", "error", "said"),
    [
        (RegisterNode(), "PeerIdAlreadyRegistered", "compare"),
        (CastVote(1, SEED, (OTHER.address,)), "WinnerAlreadyVoted", "compare"),
        (CastVote(1, SEED, (OTHER.address,)), "InvalidRoundNumber", "retry"),
        (CastVote(1, SEED, (OTHER.address,)), "InvalidVoterPeerId", "failed"),
        (ReportReward(1, 2, SEED, 0.5), "RewardAlreadySubmitted", "done"),
        (ReportReward(1, 2, SEED, 0.5), "InvalidStageNumber", "wait"),
        (AdvanceStage(1, 2), "OnlyStageManager", "failed"),
    ],
)
def test_refusals_are_told_apart(command: Any, error: str, said: str) -> None:
    """Done already, too soon, or never: as the contract's errors mean it."""
    assert a_binding().classify(command, Revert(error, {})) == said


def test_what_the_contract_lacks_is_never_encoded() -> None:
    """Sealed votes and the clock are refused before they become a transaction."""
    for command in (AdvanceStage(1, 0), CommitVote(1, SEED, (OTHER.address,))):
        with pytest.raises(ValueError, match="nothing for"):
            a_binding().call_data(command, VOTER)


def test_the_ledger_forgets_everything_on_a_deep_reorg() -> None:
    """After a reset the rounds are counted anew."""
    ledger = RLSwarmLedger(CONTRACT, ME.address, ME.peer_id, [60])
    ledger.peer_registered(round_log(9))
    ledger.reset()
    assert ledger.peer_registered(peer_log(OTHER.peer_id, OTHER.address)) == PeerRegistered(OTHER.address, 1)


# --- agreement --------------------------------------------------------------------------------------------------------


def facts(digest: bytes, seconds: tuple[int, ...], mode: str = "open") -> CoordinatorFacts:
    return CoordinatorFacts(
        chain_id=1,
        contract=CONTRACT,
        deployment_block=1,
        deployment_block_hash=b"h" * 32,
        manifest_digest=digest,
        stage_seconds=seconds,
        voting_mode=mode,
    )


def a_manifest(mode: Any = "open") -> Manifest:
    return Manifest(
        name="m",
        stages=(StageSpec(name="a", seconds=60), StageSpec(name="b", seconds=30)),
        voting=VotingSpec(mode=mode),
    )


def test_what_a_contract_does_not_fix_cannot_disagree() -> None:
    """RL Swarm's contract has no digest and no durations."""
    assert disagreement(a_manifest(), facts(b"", (0, 0))) == ""
    assert disagreement(a_manifest(), facts(manifest_digest(a_manifest()), (60, 30))) == ""


@pytest.mark.parametrize(
    ("found", "manifest", "words"),
    [
        (facts(b"", (0, 0)), a_manifest("sealed"), "open votes only"),
        (facts(b"", (0, 0, 0)), a_manifest(), "3 stages"),
        (facts(b"x" * 32, (60, 30)), a_manifest(), "digest"),
        (facts(manifest_digest(a_manifest()), (60, 31)), a_manifest(), "stages of"),
        (facts(manifest_digest(a_manifest("sealed")), (60, 30)), a_manifest("sealed"), "open votes, the manifest"),
    ],
)
def test_a_disagreement_is_one_line(found: CoordinatorFacts, manifest: Manifest, words: str) -> None:
    """The operator reads what differs and what to do."""
    text = disagreement(manifest, found)
    assert words in text
    assert "\n" not in text
