"""This node's own messages as they travel in its announcements, signed where the coordinator wants them signed."""

from __future__ import annotations

from collections.abc import Sequence

from eth_account.signers.local import LocalAccount

from node.chain.contract.swarm import Voter, ascending, commitment, guarded, millionths
from node.chain.relay.batch_calls import sign
from node.machine.commands import CastVote, ChainCommand, CommitVote, ReportReward, RevealVote
from node.ports import VoteGuard
from protocols.carried import (
    Carried,
    CarriedCommitment,
    CarriedDelegation,
    CarriedReveal,
    CarriedReward,
    CarriedVote,
    carried_delegation,
)
from protocols.typed_data import Commitment, Domain, Reward, Vote
from protocols.voting import vote_salt


class MessageSigner:
    """Signs with a node's key; the vote protection is asked before each vote, as for a transaction."""

    def __init__(self, account: LocalAccount, domain: Domain, voter: Voter, guard: VoteGuard) -> None:
        self._account, self._domain, self._voter, self._guard = account, domain, voter, guard

    def carried(self, commands: Sequence[ChainCommand]) -> tuple[Carried, ...]:
        """Return the messages of commands; those that may not be signed are left out."""
        found = (self._message(command) for command in commands)
        return tuple(message for message in found if message is not None)

    def introduction(self) -> CarriedDelegation | None:
        """Return this node's delegation, with which anybody can register it."""
        signed = self._voter.delegation
        return carried_delegation(signed) if signed else None

    def _message(self, command: ChainCommand) -> Carried | None:
        match command:
            case CommitVote() | RevealVote() | CastVote():
                return self._vote(command) if self._may_sign(command) else None
            case ReportReward():
                reward = millionths(command.reward)
                said = Reward(command.round, command.stage, command.seed, reward)
                return CarriedReward(command.round, command.stage, reward, self._signature(said))
            case _:
                return None

    def _vote(self, command: CommitVote | RevealVote | CastVote) -> Carried:
        number, seed, winners = command.round, command.seed, tuple(ascending(command.winners))
        match command:
            case CommitVote():
                sealed = commitment(command, self._voter)
                return CarriedCommitment(number, sealed, self._signature(Commitment(number, seed, sealed)))
            case RevealVote():
                return CarriedReveal(number, winners, vote_salt(self._voter.secret, self._voter.swarm, seed))
            case CastVote():
                return CarriedVote(number, winners, self._signature(Vote(number, seed, winners)))

    def _may_sign(self, command: CommitVote | RevealVote | CastVote) -> bool:
        kind, payload = guarded(command, self._voter)
        return self._guard.admit(kind, command.round, command.seed, payload)

    def _signature(self, said: Commitment | Vote | Reward) -> bytes:
        return sign(self._domain, said, self._account)
