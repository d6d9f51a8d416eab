"""This node's own messages, as it attaches them to its announcements."""

from __future__ import annotations

from collections.abc import Sequence

from eth_account.signers.local import LocalAccount

from node.chain.contract.swarm import Voter, protection_record
from node.chain.relay.batch_rules import OWN_MESSAGES
from node.chain.relay.signatures import sign
from node.machine.commands import ChainCommand, VoteCommand
from node.ports.votes import VoteGuard
from protocols.signed_messages import SignedDelegation, SignedMessage
from protocols.typed_data import Domain, TypedMessage


class MessageSigner:
    """Signs with a node's key. The vote protection is asked before each vote, as for a transaction."""

    def __init__(self, account: LocalAccount, domain: Domain, voter: Voter, guard: VoteGuard) -> None:
        self._account, self._domain, self._voter, self._guard = account, domain, voter, guard

    def messages(self, commands: Sequence[ChainCommand]) -> tuple[SignedMessage, ...]:
        """Return the messages of commands; those that may not be signed are left out."""
        found = (self._message(command) for command in commands)
        return tuple(message for message in found if message is not None)

    @property
    def delegation(self) -> SignedDelegation | None:
        """This node's delegation, with which anybody can register it."""
        return self._voter.delegation

    def _message(self, command: ChainCommand) -> SignedMessage | None:
        rules = OWN_MESSAGES.get(type(command))
        if rules is None or not self._may_sign(command):
            return None
        message: SignedMessage = rules.make(command, self._voter, self._sign)
        return message

    def _may_sign(self, command: ChainCommand) -> bool:
        if not isinstance(command, VoteCommand):
            return True
        kind, payload = protection_record(command, self._voter)
        return self._guard.admit(kind, command.round, command.seed, payload)

    def _sign(self, typed: TypedMessage) -> bytes:
        return sign(self._domain, typed, self._account)
