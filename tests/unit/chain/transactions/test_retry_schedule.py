"""When queued transactions are tried again."""

from __future__ import annotations

import math

import pytest

from node.chain.transactions.retry_schedule import LATER, SOON, RetrySchedule
from node.chain.transactions.send_errors import classify_send_error
from node.machine.transaction_keys import AdvanceKey

KEYS = [AdvanceKey(0, stage) for stage in range(4)]


def test_a_transaction_is_due_until_it_is_deferred() -> None:
    """And again once its time has come."""
    schedule = RetrySchedule()
    assert schedule.is_due(KEYS[0], 10.0)
    schedule.defer(KEYS[0], 15.0)
    assert [schedule.is_due(KEYS[0], now) for now in (10.0, 14.9, 15.0)] == [False, False, True]


def test_a_new_head_makes_due_what_a_block_may_have_changed() -> None:
    """What waits for a moment or for relayers; not what an endpoint refused."""
    schedule = RetrySchedule()
    schedule.defer(KEYS[0], 10.0 + SOON)
    schedule.defer(KEYS[1], 10.0 + LATER)
    schedule.leave_to_relayers(KEYS[2], 100.0)
    schedule.new_head(10.0)
    assert [schedule.is_due(key, 10.0) for key in KEYS] == [True, False, True, True]


def test_what_was_refused_is_retried_when_a_pause_changes() -> None:
    """What is left to relayers is not sent for that."""
    schedule = RetrySchedule()
    schedule.defer(KEYS[0], 15.0)
    schedule.leave_to_relayers(KEYS[1], 15.0)
    schedule.retry_refused()
    assert [schedule.is_due(key, 10.0) for key in KEYS[:2]] == [True, False]


def test_the_next_one_due_decides_how_long_to_wait() -> None:
    """Nothing queued is no reason to wake up; something due is one to go on at once."""
    schedule = RetrySchedule()
    assert schedule.seconds_left([], 10.0) == math.inf
    schedule.defer(KEYS[0], 15.0)
    schedule.defer(KEYS[1], 12.0)
    assert schedule.seconds_left(KEYS[:2], 10.0) == pytest.approx(2.0)
    assert schedule.seconds_left(KEYS, 10.0) == 0.0
    schedule.forget(KEYS[1])
    assert schedule.seconds_left(KEYS[:2], 10.0) == 0.0


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("already known", "already known"),
        ("nonce too low: next nonce 5, tx nonce 4", "nonce too low"),
        ("replacement transaction underpriced", "underpriced"),
        ("max fee per gas less than block base fee: 1 < 7", "underpriced"),
        ("Insufficient funds for gas * price + value", "unfunded"),
        ("daily request count exceeded", "refused"),
    ],
)
def test_an_endpoints_wording_is_classified(message: str, kind: str) -> None:
    """Geth's, anvil's and providers' own."""
    assert classify_send_error(message) == kind
