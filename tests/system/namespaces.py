"""Network namespaces with one TUN device each, joined by `wires.Wires`, inside a user namespace of our own.

`python -m tests.system.namespaces ADDRESS FD` holds one namespace: it makes the device, sends it through the socket FD,
and waits until that is closed.
"""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import shutil
import socket
import struct
import subprocess
import sys
from types import TracebackType
from typing import Self

from tests.support.paths import ROOT
from tests.system.packets import Nat
from tests.system.wires import MTU, Rules, Wires, encode_rules

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
INSIDE = ("unshare", "--user", "--map-root-user", "--net", "--kill-child")
"""Runs a command as root of a new user namespace, in a new network namespace."""


def public_address(number: int) -> str:
    """Return the address under which others know a namespace: no private range, and a /16 of its own."""
    return f"45.{77 + number}.0.1"


def inner_address(number: int) -> str:
    """Return the address that a namespace behind a NAT has itself."""
    return f"192.168.{number}.2"


def why_not() -> str:
    """Return why this machine can't make namespaces with TUN devices; empty where it can."""
    if not (shutil.which("unshare") and shutil.which("nsenter") and shutil.which("ip")):
        return "needs unshare, nsenter (util-linux) and ip (iproute2)"
    program = "from tests.system.namespaces import open_tun; open_tun('127.9.9.9')"
    tried = subprocess.run([*INSIDE, sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    return tried.stderr.strip()[-200:] if tried.returncode else ""


def open_tun(address: str) -> int:
    """Make this namespace's device, with an address and the default route; return its descriptor."""
    device = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", b"tun0", IFF_TUN | IFF_NO_PI))
    for command in (
        "link set lo up",
        f"addr add {address}/32 dev tun0",
        f"link set tun0 mtu {MTU} up",
        "route add default dev tun0",
    ):
        subprocess.run(["ip", *command.split()], check=True, stdout=subprocess.DEVNULL)
    return device


class Network:
    """Namespace 0 is this process's own, 1 to `number` are others'. Use as a context manager, before any thread."""

    def __init__(self, number: int, behind_nat: frozenset[int], seed: int = 1) -> None:
        self._number, self._behind_nat, self._seed = number, behind_nat, seed
        self._holders: dict[int, subprocess.Popen[bytes]] = {}
        self._lines: list[socket.socket] = []
        self._control, self._far = socket.socketpair()
        self._wires: multiprocessing.process.BaseProcess | None = None

    def __enter__(self) -> Self:
        devices = {0: open_tun(public_address(0))}
        for number in range(1, self._number + 1):
            devices[number] = self._hold(number)
        addresses = {number: socket.inet_aton(public_address(number)) for number in devices}
        nats = {number: Nat(socket.inet_aton(inner_address(number)), addresses[number]) for number in self._behind_nat}
        wires = Wires(devices, addresses, nats, self._seed)
        self._wires = multiprocessing.get_context("fork").Process(target=self._run, args=(wires,), daemon=True)
        self._wires.start()
        self._far.close()
        for device in devices.values():
            os.close(device)
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, at: TracebackType | None) -> None:
        self._control.close()
        for line in self._lines:
            line.close()
        for holder in self._holders.values():
            holder.wait()
        if self._wires is not None:
            self._wires.join()

    def _run(self, wires: Wires) -> None:
        self._control.close()
        wires.run(self._far)

    def _hold(self, number: int) -> int:
        address = inner_address(number) if number in self._behind_nat else public_address(number)
        near, far = socket.socketpair()
        self._holders[number] = subprocess.Popen(
            ["unshare", "--net", sys.executable, "-m", __name__, address, str(far.fileno())],
            cwd=ROOT,
            pass_fds=(far.fileno(),),
        )
        far.close()
        self._lines.append(near)
        _, descriptors, _, _ = socket.recv_fds(near, 1, 1)
        return descriptors[0]

    def change(self, rules: Rules) -> None:
        """Let packets travel by other rules from now on."""
        self._control.sendall(encode_rules(rules))

    def inside(self, number: int) -> tuple[str, ...]:
        """Return what to put before a command so that it runs in a namespace."""
        return ("nsenter", f"--net=/proc/{self._holders[number].pid}/ns/net")


def hold(address: str, line: socket.socket) -> None:
    """Hold a namespace until the other end of the line is closed."""
    device = open_tun(address)
    socket.send_fds(line, [b"d"], [device])
    os.close(device)
    line.recv(1)


if __name__ == "__main__":
    hold(sys.argv[1], socket.socket(fileno=int(sys.argv[2])))
