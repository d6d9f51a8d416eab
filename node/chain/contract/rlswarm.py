"""RL Swarm's coordinator (0.4.2 to 0.6.0) as a swarm. Pure.

Peer ids are text, a stage manager opens the stages, and each vote is a transaction of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

from node.chain.contract import swarm
from node.chain.contract.abi import Revert
from node.chain.contract.rlswarm_ledger import ABI, PEERS, ROUNDS, SIGNED, STAGES, UNSIGNED, RLSwarmLedger
from node.chain.contract.swarm import SettlementVerdict, Voter
from node.chain.rpc.blocks import BlockHead, Log
from node.machine.commands import (
    AdvanceStage,
    CastVote,
    ChainCommand,
    CommitVote,
    RegisterNode,
    RelayMessages,
    RenewDelegation,
    ReportReward,
    RevealVote,
    VoteCommand,
)
from node.machine.inputs import PeerRegistered, StageOpened
from protocols.identifiers import Address

REWARD_SCALE = 80
"""RL Swarm's own node sums the rewards of a stage's 80 completions (20 questions of 4); ours is their mean."""


class RLSwarmBinding:
    """RL Swarm's interface. `seconds` are the manifest's for each stage: the estimate until one was seen to end."""

    def __init__(self, contract: Address, me: Address, peer_id: str, seconds: Sequence[int]) -> None:
        self.abi, self.topics, self.block_topics = ABI, [PEERS, ROUNDS], [PEERS, ROUNDS, STAGES]
        self.ledger = RLSwarmLedger(contract, me, peer_id, seconds)

    def call_data(self, command: ChainCommand, voter: Voter) -> str:
        """See `CoordinatorBinding`. Raises ValueError for what this contract has no function for, KeyError for
        unknown winners.

        `RLSwarmReader.precheck` settles those before they come here.
        """
        me = self.ledger.peer_id
        match command:
            case RegisterNode():
                return ABI.call("registerPeer", me)
            case CastVote():
                winners = [self.ledger.peer_ids[winner] for winner in swarm.ascending(command.winners)]
                return ABI.call("submitWinners", command.round, winners, me)
            case ReportReward():
                points = round(command.reward * REWARD_SCALE)
                function, points = (SIGNED, points) if self.ledger.signed else (UNSIGNED, max(0, points))
                return ABI.call(function, command.round, command.stage, points, me)
            case RenewDelegation() | AdvanceStage() | CommitVote() | RevealVote() | RelayMessages():
                raise ValueError(f"RL Swarm's contract has nothing for {type(command).__name__}")

    def protection_record(self, command: VoteCommand, voter: Voter) -> tuple[str, bytes]:
        """See `CoordinatorBinding`."""
        return swarm.protection_record(command, voter)

    def classify(self, command: ChainCommand, revert: Revert) -> SettlementVerdict:
        """See `CoordinatorBinding`.

        A reward of a past round's last stage is refused by 0.4.2 until the swarm is in such a stage again: it waits.
        """
        match command, revert.name:
            case (RegisterNode(), "PeerIdAlreadyRegistered") | (CastVote(), "WinnerAlreadyVoted"):
                return "compare"
            case ReportReward(), "RewardAlreadySubmitted":
                return "done"
            case ((CastVote() | ReportReward()), "InvalidRoundNumber"):
                return "retry"
            case ReportReward(), "InvalidStageNumber":
                return "wait"
            case _:
                return "failed"

    def peer_registered(self, log: Log) -> PeerRegistered | None:
        """See `CoordinatorBinding`."""
        return self.ledger.peer_registered(log)

    def stage_opened(self, log: Log, head: BlockHead) -> StageOpened | None:
        """See `CoordinatorBinding`."""
        return self.ledger.stage_opened(log, head)

    def pause_changed(self, log: Log) -> tuple[int, int] | None:
        """See `CoordinatorBinding`: there is no pause here."""
        return None

    def peer_forgotten(self, log: Log) -> Address | None:
        """See `CoordinatorBinding`."""
        return self.ledger.peer_forgotten(log)

    def reset(self) -> None:
        """See `CoordinatorBinding`."""
        self.ledger.reset()
