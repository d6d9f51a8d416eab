"""Attackers: whole nodes with chain, key and host, that play by `attacks.py`.

`python -m tests.redteam.hostile_node HOME...`

Each directory is a node's, with the attack's name in the file `attack`. One process imports and forks one for each.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import trio
from msgspec.structs import replace

import node.app.node as app
from node.app.preflight import open_questions
from node.config import load_config
from node.identity.local_peer import LocalPeer
from node.machine import commands as c
from node.machine import inputs as i
from node.machine.state import current_step
from node.network.host import StreamHandler
from node.network.parameters import NetworkCallbacks, SwarmMember
from node.network.pubsub.topic import Topic
from node.network.service import Libp2pNetwork
from node.ports.network import NetworkService
from protocols.admission import Slot
from protocols.identifiers import Address, Digest, body_digest
from protocols.wire import decode_rollouts, encode
from tests.redteam.attacks import ATTACKS, PAUSE, Attack, Sight
from tests.support.fake_trainer import FakeSpeed, FakeTrainer

OTHERS_SECONDS = 3.0
"""How much longer whoever lives off others' bodies waits for the first of them."""


class HostileTrainer(FakeTrainer):
    """Makes rollouts of a given skill and alters them."""

    def __init__(self, attack: Attack, node: HostileNode, peer: Address, questions: Any) -> None:
        speed = FakeSpeed(load=0.2, group=0.02, update=0.1, evaluation=0.1, save=0.1)
        super().__init__(node.manifest, peer, questions, node.bodies, speed=speed, skill=attack.skill)
        self._attack, self._node = attack, node

    async def _generate(self, command: c.GenerateRollouts) -> i.AnyInput:
        made = await super()._generate(command)
        await self._listen()
        assert isinstance(made, i.RolloutsGenerated)
        body = self._bodies.get(made.body)
        assert body is not None
        sight = Sight(self._manifest, self._questions, self._peer, command.round, self._node.others())
        forged = encode(self._attack.forge(sight, decode_rollouts(body, made.body, len(body))))
        self._bodies.put(body_digest(forged), forged, command.round)
        reward = made.reward if self._attack.claims is None else self._attack.claims * made.groups
        return replace(made, body=body_digest(forged), size=len(forged), reward=reward)

    async def _listen(self) -> None:
        """Wait as the attack says; then, where it waits at all, for somebody's body."""
        await trio.sleep(self._attack.patience)
        with trio.move_on_after(OTHERS_SECONDS if self._attack.patience else 0.0):
            while not self._node.others():  # noqa: ASYNC110 - attackers look, as everywhere here
                await trio.sleep(PAUSE)


class HostileNetwork(Libp2pNetwork):
    """`tests.redteam.attacks.Attacker`: gossips like everybody, and does the attack beside it."""

    def __init__(self, attack: Attack, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._attack = attack

    async def _send_own(self, topic: Topic) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(super()._send_own, topic)
            nursery.start_soon(self._attack.harass, self, topic)

    @property
    def me(self) -> LocalPeer:
        """The attacker's identity."""
        return self._me

    def serve(self, protocol: str, handler: StreamHandler) -> None:
        """Answer streams of a protocol in place of the honest handler."""
        assert self._host is not None
        self._host.serve(protocol, handler)

    def body(self, digest: Digest) -> bytes | None:
        """Return one of the attacker's bodies."""
        return self._bodies.get(digest)

    def announcements(self) -> list[tuple[Slot, bytes]]:
        """Return the accepted announcements, as they were sent."""
        found = [(slot, self._validator.envelope(slot)) for slot in self._validator.slots()]
        return [(slot, data) for slot, data in found if data is not None]


class HostileNode(app.Node):
    """A node with both."""

    def trainer_of(self, peer: Address) -> Any:
        """Return a trainer that alters what it makes."""
        attack = ATTACKS[(self.home / "attack").read_text()]
        return HostileTrainer(attack, self, peer, open_questions(self.manifest, self.config))

    def network_of(self, member: SwarmMember, callbacks: NetworkCallbacks) -> NetworkService:
        """Return a network that does the attack."""
        attack = ATTACKS[(self.home / "attack").read_text()]
        return HostileNetwork(attack, self.config.gossip, member, self.bodies, callbacks, self.home / "peers.json")

    def others(self) -> Any:
        """Return the bodies of the current stage that have arrived."""
        pool = self.state.bodies_by_step.get(current_step(self.state), {})
        found = [self.bodies.get(each.digest) for peer, each in sorted(pool.items()) if peer != self.key.address]
        return tuple(decode_rollouts(body, body_digest(body), len(body)) for body in found if body)


def stand_back() -> None:
    """Let honest nodes have the processor first: on machines of their own they would not share it with attackers."""
    os.nice(5)


def speak_from(address: str) -> None:
    """Have every connection of this process come from an address of this machine."""
    trio.open_tcp_stream = partial(trio.open_tcp_stream, local_address=address)


def be(home: Path) -> None:
    """Be the attacker whose directory this is, until killed. It has an address of its own, as strangers do: what one of
    them does shuts out no other."""
    attack = (home / "attack").read_text()
    address = f"127.0.66.{1 + list(ATTACKS).index(attack)}"
    speak_from(address)
    app.Node = HostileNode  # type: ignore[misc]
    with (home / "log").open("ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    config = load_config(home, {}, {})
    app.run_node(replace(config, gossip=replace(config.gossip, listen=(f"/ip4/{address}/tcp/0",))), home)


def main(homes: list[str]) -> None:
    """Fork an attacker for each directory and wait for all."""
    stand_back()
    children = []
    for home in homes:
        child = os.fork()
        if child == 0:
            be(Path(home))
            os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)


if __name__ == "__main__":
    main(sys.argv[1:])
