"""The network between namespaces: a process that moves packets from one TUN device to another, late, or not at all.

The kernels on which this runs have no `netem`; a few thousand packets a second are no burden to Python.
"""

from __future__ import annotations

import heapq
import json
import os
import select
import socket
import time
from collections.abc import Mapping
from random import Random

import msgspec

from tests.system.packets import Nat

MTU = 1400


class Rules(msgspec.Struct, frozen=True):
    """How packets travel: seconds one way, the share that is lost, and the parts that hear nothing of each other.

    Namespaces are numbers. Those in no part (as the chain's) hear everybody.
    """

    delay: float = 0.0
    loss: float = 0.0
    parts: tuple[tuple[int, ...], ...] = ()

    def parted(self, one: int, other: int) -> bool:
        """Return True if two namespaces are in different parts."""
        found = [next((part for part in self.parts if each in part), None) for each in (one, other)]
        return None not in found and found[0] is not found[1]


class Wires:
    """Moves packets. `devices` are TUN devices by namespace, `addresses` the addresses that others know."""

    def __init__(
        self, devices: Mapping[int, int], addresses: Mapping[int, bytes], nats: Mapping[int, Nat], seed: int
    ) -> None:
        self._devices, self._nats, self._dice = dict(devices), dict(nats), Random(seed)
        self._of_device = {device: number for number, device in devices.items()}
        self._of_address = {address: number for number, address in addresses.items()}
        self._rules = Rules()
        self._travelling: list[tuple[float, int, int, bytes]] = []
        self._count = 0

    def run(self, control: socket.socket) -> None:
        """Move packets until the other end of `control` is closed; each line there is a new `Rules`."""
        control.setblocking(False)
        rest = b""
        while True:
            wait = max(0.0, self._travelling[0][0] - time.monotonic()) if self._travelling else None
            ready, _, _ = select.select([*self._of_device, control.fileno()], [], [], wait)
            if control.fileno() in ready:
                data = control.recv(65536)
                if not data:
                    return
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    self._rules = msgspec.json.decode(line, type=Rules)
            for device in ready:
                if device in self._of_device:
                    self._send(self._of_device[device], os.read(device, 65536))
            self._deliver()

    def _send(self, source: int, packet: bytes) -> None:
        nat = self._nats.get(source)
        sent = nat.outward(packet) if nat else packet
        target = self._of_address.get(sent[16:20]) if sent and len(sent) >= 20 else None
        if sent is None or target is None or self._rules.parted(source, target):
            return
        if self._dice.random() >= self._rules.loss:
            self._count += 1
            heapq.heappush(self._travelling, (time.monotonic() + self._rules.delay, self._count, target, sent))

    def _deliver(self) -> None:
        while self._travelling and self._travelling[0][0] <= time.monotonic():
            _, _, target, packet = heapq.heappop(self._travelling)
            nat = self._nats.get(target)
            got = nat.inward(packet) if nat else packet
            if got is not None:
                os.write(self._devices[target], got)


def encode_rules(rules: Rules) -> bytes:
    """Return rules as `Wires.run` reads them."""
    return json.dumps(msgspec.to_builtins(rules)).encode() + b"\n"
