"""EIP-1559 fees: what to offer, and by how much to bump them when a transaction is stuck. Pure; wei per gas."""

from __future__ import annotations

from typing import Any

import msgspec

MIN_TIP = 10**6
GWEI = 10**9


class Fees(msgspec.Struct, frozen=True):
    """An offer: `tip` for the block's producer, at most `max_fee` altogether."""

    tip: int
    max_fee: int


def suggested_fees(history: dict[str, Any], cap: int) -> tuple[int, Fees]:
    """Return the next block's base fee, and fees that suffice until the base fee has doubled.

    `history` answers `eth_feeHistory` with one percentile: the median of what was paid is the tip.
    """
    base = int(history["baseFeePerGas"][-1], 16)
    tips = sorted(int(row[0], 16) for row in history.get("reward") or [] if row)
    tip = max(MIN_TIP, tips[len(tips) // 2] if tips else 0)
    return base, Fees(min(tip, cap), min(cap, 2 * base + tip))


def bumped(fees: Fees, base: int, cap: int) -> Fees:
    """Return fees that replace older ones: nodes ask for 10 % more of both; this gives 13 %, and twice the base fee."""
    tip = min(cap, fees.tip * 113 // 100 + 1)
    return Fees(tip, min(cap, max(fees.max_fee * 113 // 100 + 1, 2 * base + tip)))
