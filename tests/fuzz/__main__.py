"""`make fuzz`: ten million mutated messages through every decoder; ends with 1 at the first that is not read right.

`python -m tests.fuzz [INPUTS] [SEED]`. The same seed makes the same inputs.
"""

from __future__ import annotations

import faulthandler
import random
import resource
import sys
import time
from collections.abc import Sequence

import msgspec
import trio

from tests.fuzz.mutation import mutated
from tests.fuzz.targets import Target, targets

INPUTS = 10_000_000
SLOWEST_SECONDS = 1.0
MOST_GROWTH = 64 << 20
HUNG_SECONDS = 60
BATCH = 1000
WARM_UP = 20


class Failure(Exception):  # noqa: N818 - what the fuzzer is for
    """An input was not read as documented."""


class Outcome(msgspec.Struct, frozen=True):
    """What one target made of its inputs: seconds of the slowest, bytes by which the process's peak memory grew."""

    name: str
    inputs: int
    refused: int
    slowest: float
    grown: int


def fuzz(inputs: int, seed: int) -> list[Outcome]:
    """Feed every target its share. Raises `Failure` naming seed, target and input."""
    return trio.run(_fuzz, inputs, seed)


async def _fuzz(inputs: int, seed: int) -> list[Outcome]:
    """Work inside a loop that has nothing else to do: some decoders read from streams."""
    found = targets()
    whole = sum(target.weight for target in found)
    rng = random.Random(seed)
    for target in found:
        _batch(target, rng, WARM_UP)
    before = _peak()
    outcomes = []
    for target in found:
        outcomes.append(await _share(target, rng, inputs * target.weight // whole + 1, before))
        if outcomes[-1].grown > MOST_GROWTH:
            raise Failure(f"seed {seed}: {target.name}: memory grew by {outcomes[-1].grown >> 20} MiB")
    return outcomes


async def _share(target: Target, rng: random.Random, inputs: int, before: int) -> Outcome:
    refused, slowest = 0, 0.0
    for start in range(0, inputs, BATCH):
        faulthandler.dump_traceback_later(HUNG_SECONDS, exit=True)
        some, longest = _batch(target, rng, min(BATCH, inputs - start))
        refused, slowest = refused + some, max(slowest, longest)
        await trio.lowlevel.checkpoint()  # only then the loop forgets the deadlines of frames that were read
    faulthandler.cancel_dump_traceback_later()
    return Outcome(target.name, inputs, refused, slowest, _peak() - before)


def _batch(target: Target, rng: random.Random, inputs: int) -> tuple[int, float]:
    """Return how many inputs were refused, and the seconds of the slowest one."""
    refused, slowest = 0, 0.0
    for _ in range(inputs):
        data = mutated(rng, target.samples)
        began = time.perf_counter()
        try:
            target.read(data)
        except target.refusals:
            refused += 1
        except BaseException as error:
            raise Failure(f"{target.name}: {type(error).__name__}: {error}: {_shown(data)}") from error
        spent = time.perf_counter() - began
        if spent > slowest:
            slowest = spent
            if spent > SLOWEST_SECONDS:
                raise Failure(f"{target.name}: {spent:.1f} s: {_shown(data)}")
    return refused, slowest


def _shown(data: bytes) -> str:
    return f"bytes.fromhex({data.hex()!r})"


def _peak() -> int:
    """Return the most memory that this process ever held, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << (0 if sys.platform == "darwin" else 10)


def main(arguments: Sequence[str]) -> int:
    """Run; print a line for each target."""
    inputs, seed = (int(arguments[at]) if len(arguments) > at else default for at, default in ((0, INPUTS), (1, 1)))
    began = time.monotonic()
    try:
        outcomes = fuzz(inputs, seed)
    except Failure as failure:
        print(failure, file=sys.stderr)
        return 1
    for each in outcomes:
        print(
            f"{each.name:22} {each.inputs:>10,} inputs, {each.refused / each.inputs:4.0%} refused, slowest "
            f"{each.slowest * 1000:6.1f} ms, peak memory +{each.grown / (1 << 20):.1f} MiB"
        )
    print(f"{sum(each.inputs for each in outcomes):,} inputs in {time.monotonic() - began:.0f} s, seed {seed}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
