"""Orders of owners: asked for, signed, checked, kept."""

import json
from pathlib import Path

import coincurve
import pytest
from eth_account import Account
from eth_account.messages import encode_typed_data
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from node.exits import Exit, Refusal
from node.identity.delegation_file import (
    load_delegation,
    load_revocation,
    save_delegation,
    save_revocation,
    waiting_orders,
)
from node.identity.key import NodeKey
from node.identity.owner_orders import (
    OwnerOrder,
    answered,
    decode_order,
    encode_order,
    message_of,
    normalised,
    order_of,
    owner_signed,
    problem,
)
from protocols.signed_messages import SignedRevocation, kind_of
from protocols.typed_data import Delegation, Domain, Revocation, typed_data

DOMAIN = Domain(31_337, "0x" + "c0" * 20, b"s" * 32)
NODE, OWNER = NodeKey(bytes([1]) * 32), NodeKey(bytes([2]) * 32)
NOW = 1_700_000_000.0
MESSAGE = Delegation(OWNER.address, NODE.address, 1_700_000_000_000, int(NOW) + 100)
ORDER = order_of(DOMAIN, MESSAGE)
SIGNED = answered(ORDER, OWNER.address, OWNER.sign_message(DOMAIN, MESSAGE))


def test_the_signature_is_the_one_of_wallets() -> None:
    """eth-account, given the JSON form that a browser's wallet gets, signs the very same bytes."""
    account = Account.from_key(OWNER.secret)
    by_wallet = account.sign_message(encode_typed_data(full_message=typed_data(DOMAIN, MESSAGE))).signature
    assert bytes(by_wallet) == OWNER.sign_message(DOMAIN, MESSAGE)


def test_an_order_goes_out_and_comes_back() -> None:
    """A line of JSON, broken by a terminal or not, reads back; with its signature it is this node's and its owner's."""
    line = encode_order(SIGNED)
    assert "\n" not in line
    assert decode_order("  " + line[:40] + "\n" + line[40:] + "\r\n") == SIGNED
    assert problem(SIGNED, DOMAIN, NODE.address, NOW) == ""
    assert owner_signed(DOMAIN, message_of(SIGNED), bytes.fromhex(SIGNED.signature))
    assert json.loads(encode_order(ORDER))["typed_data"] == json.loads(json.dumps(typed_data(DOMAIN, MESSAGE)))


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"signature": ""}, "not signed yet"),
        ({"chain_id": 1}, "on chain 1"),
        ({"contract": "0x" + "c1" * 20}, "0x" + "c1" * 20),
        ({"salt": "00" * 32}, "earlier deployment"),
        ({"node": OWNER.address}, "for node"),
        ({"expiry": int(NOW)}, "has expired"),
    ],
)
def test_an_answer_for_something_else_is_told_apart(changed: dict[str, object], says: str) -> None:
    """Each way in which an answer is not for this node, here and now, has its own words."""
    assert says in problem(replace(SIGNED, **changed), DOMAIN, NODE.address, NOW)


@given(st.sampled_from(["owner", "node", "serial", "expiry"]), st.integers(1, 1000))
def test_a_changed_order_is_not_signed(field: str, by: int) -> None:
    """Whatever is changed in a signed order, its signature no longer holds."""
    value = getattr(SIGNED, field)
    changed = value + by if isinstance(value, int) else f"0x{int(value, 16) ^ by:040x}"
    assert not owner_signed(DOMAIN, message_of(replace(SIGNED, **{field: changed})), bytes.fromhex(SIGNED.signature))


@given(st.booleans(), st.booleans())
def test_signatures_of_any_wallet_are_brought_into_one_form(high: bool, low_v: bool) -> None:
    """v may be 0 or 1, s may lie in the upper half: what the contract gets is one and the same."""
    signature = bytes.fromhex(SIGNED.signature)
    s, v = int.from_bytes(signature[32:64], "big"), signature[64]
    if high:
        s, v = coincurve.utils.GROUP_ORDER_INT - s, 55 - v
    given_form = signature[:32] + s.to_bytes(32, "big") + bytes([v - 27 if low_v else v])
    assert normalised(given_form) == signature
    assert normalised(b"a contract wallet's") == b"a contract wallet's"


@given(st.text(alphabet='{}[]":,0x1ab \n', max_size=60))
def test_what_is_no_order_is_refused(text: str) -> None:
    """Anything else that is pasted gives one line and no trace."""
    with pytest.raises(Refusal) as refused:
        decode_order(text)
    assert refused.value.code is Exit.DELEGATION


def test_numbers_out_of_bounds_are_no_order() -> None:
    """A serial or an expiry that does not fit the contract's types is refused already when it is read."""
    for field in ("serial", "expiry", "chain_id"):
        with pytest.raises(Refusal):
            decode_order(encode_order(replace(SIGNED, **{field: 1 << 256})))
        with pytest.raises(Refusal):
            decode_order(encode_order(replace(SIGNED, **{field: -1})))


def test_an_order_for_one_owner_is_not_signed_by_another() -> None:
    """Where the request names its owner, another key refuses."""
    with pytest.raises(Refusal, match=OWNER.address):
        answered(ORDER, NODE.address, bytes(65))


def test_a_delegation_is_kept_with_the_nodes_consent(tmp_path: Path) -> None:
    """What is saved loads for its own deployment only, signed by both, in a file for its owner alone."""
    saved = save_delegation(tmp_path, SIGNED, NODE)
    assert load_delegation(tmp_path, DOMAIN) == saved
    assert load_delegation(tmp_path, replace(DOMAIN, salt=bytes(32))) is None
    assert saved.node_signature == NODE.sign_message(DOMAIN, MESSAGE)
    assert (tmp_path / "delegation.json").stat().st_mode & 0o777 == 0o600
    (tmp_path / "delegation.json").write_text("{}")
    with pytest.raises(Refusal, match="swarm login"):
        load_delegation(tmp_path)


def revocation(serial: int) -> OwnerOrder:
    said = Revocation(OWNER.address, NODE.address, serial)
    return answered(order_of(DOMAIN, said), OWNER.address, OWNER.sign_message(DOMAIN, said))


def test_a_revocation_is_kept(tmp_path: Path) -> None:
    """It waits, and travels, until it is on chain; then it is deleted. It is never taken for a delegation."""
    order, serial = revocation(MESSAGE.serial + 1), MESSAGE.serial
    assert load_revocation(tmp_path) is None
    assert waiting_orders(tmp_path, DOMAIN, serial, 0) == ()
    save_revocation(tmp_path, order)
    (waiting,) = waiting_orders(tmp_path, DOMAIN, serial, MESSAGE.expiry)
    assert waiting == SignedRevocation(OWNER.address, NODE.address, serial + 1, bytes.fromhex(order.signature))
    assert load_revocation(tmp_path) == replace(order, typed_data=None)
    with pytest.raises(ValueError, match="not a delegation"):
        save_delegation(tmp_path / "other", order, NODE)
    assert waiting_orders(tmp_path, DOMAIN, serial + 1, int(NOW)) == ()
    assert load_revocation(tmp_path) is None


def test_a_renewal_travels_until_it_is_on_chain(tmp_path: Path) -> None:
    """A delegation waits where the register has an older and shorter one; a registration has its own way."""
    saved = save_delegation(tmp_path, SIGNED, NODE)
    (waiting,) = waiting_orders(tmp_path, DOMAIN, MESSAGE.serial - 1, MESSAGE.expiry - 1)
    assert waiting == saved
    assert waiting_orders(tmp_path, DOMAIN, MESSAGE.serial, MESSAGE.expiry) == ()
    assert waiting_orders(tmp_path, DOMAIN, MESSAGE.serial - 1, MESSAGE.expiry) == ()
    assert waiting_orders(tmp_path, DOMAIN, 0, 0) == ()
    assert waiting_orders(tmp_path, replace(DOMAIN, chain_id=1), MESSAGE.serial - 1, 0) == ()


def test_a_new_delegation_ends_an_older_revocation(tmp_path: Path) -> None:
    """Logged out and in again before anybody brought either: both travel, and the newer one wins on chain."""
    save_revocation(tmp_path, revocation(MESSAGE.serial - 1))
    save_delegation(tmp_path, SIGNED, NODE)
    kinds = [kind_of(each) for each in waiting_orders(tmp_path, DOMAIN, MESSAGE.serial - 2, 1)]
    assert kinds == ["revocation", "delegation"]
    assert waiting_orders(tmp_path, DOMAIN, MESSAGE.serial, MESSAGE.expiry) == ()
    assert load_revocation(tmp_path) is None
