"""A short run of the fuzzer; `make fuzz` is the long one."""

import random
import time

import pytest

from tests.fuzz.__main__ import MOST_GROWTH, Failure, _batch, fuzz
from tests.fuzz.mutation import mutated
from tests.fuzz.targets import Target, targets


def test_no_message_makes_a_decoder_fail() -> None:
    """Twenty thousand mutated messages: each decoder reads or refuses, at once, within 64 MiB."""
    outcomes = fuzz(20_000, seed=int(time.time()))

    assert sum(each.inputs for each in outcomes) >= 20_000
    assert max(each.grown for each in outcomes) < MOST_GROWTH
    assert all(0 < each.refused < each.inputs for each in outcomes if each.name != "body check")


@pytest.mark.parametrize("target", targets(), ids=lambda target: target.name)
async def test_samples_are_read(target: Target) -> None:
    """The fuzzer starts from messages that the decoders take (but for one that is of another version)."""
    read = 0
    for sample in target.samples:
        try:
            target.read(sample)
        except target.refusals:
            continue
        read += 1

    assert read >= 1


def test_a_decoder_that_fails_is_caught() -> None:
    """An error that is not documented ends the run, with the input that made it."""
    broken = Target("broken", (b"abc",), lambda data: data.decode("ascii"), (ZeroDivisionError,), 1)

    with pytest.raises(Failure, match=r"broken: UnicodeDecodeError: .*bytes\.fromhex"):
        _batch(broken, random.Random(1), 1000)


def test_the_same_seed_makes_the_same_inputs() -> None:
    """A failure can be repeated."""
    first, second = ([mutated(random.Random(5), (b"abc", b"def")) for _ in range(50)] for _ in range(2))

    assert first == second
