"""Digests of signed messages, against eth-account's own reading of EIP-712."""

from __future__ import annotations

import json

import pytest
from eth_account.messages import encode_typed_data
from hypothesis import given
from hypothesis import strategies as st

from protocols.identifiers import keccak256
from protocols.typed_data import (
    Commitment,
    Delegation,
    Domain,
    Revocation,
    Reward,
    TypedMessage,
    Vote,
    digest,
    typed_data,
)

addresses = st.binary(min_size=20, max_size=20).map(lambda raw: "0x" + raw.hex())
words = st.binary(min_size=32, max_size=32)
uint64 = st.integers(0, 2**64 - 1)
domains = st.builds(Domain, chain_id=st.integers(1, 2**256 - 1), contract=addresses, salt=words)
messages = st.one_of(
    st.builds(Delegation, owner=addresses, node=addresses, serial=uint64, expiry=uint64),
    st.builds(Revocation, owner=addresses, node=addresses, serial=uint64),
    st.builds(Commitment, round=uint64, seed=words, commitment=words),
    st.builds(Vote, round=uint64, seed=words, winners=st.lists(addresses, max_size=16).map(tuple)),
    st.builds(Reward, round=uint64, stage=st.integers(0, 255), seed=words, reward=st.integers(-(2**255), 2**255 - 1)),
)
NOWHERE = Domain(1, "0x" + "00" * 20, bytes(32))


@given(domains, messages)
def test_the_digest_is_the_one_that_wallets_sign(domain: Domain, message: TypedMessage) -> None:
    """The JSON form, read by an independent implementation after a journey as text, has the very digest."""
    form = json.loads(json.dumps(typed_data(domain, message)))
    signable = encode_typed_data(full_message=form)
    assert digest(domain, message) == keccak256(b"\x19" + signable.version + signable.header + signable.body)


@pytest.mark.parametrize(
    "message",
    [
        Reward(1, 256, bytes(32), 0),
        Reward(1, 0, bytes(32), 2**255),
        Reward(-1, 0, bytes(32), 0),
        Commitment(1, bytes(31), bytes(32)),
        Revocation("0x00", "0x" + "00" * 20, 1),
        Vote(2**64, bytes(32), ()),
    ],
)
def test_what_does_not_fit_its_type_is_not_signed(message: TypedMessage) -> None:
    """A value that would be cut to size is refused."""
    with pytest.raises(ValueError, match="is no"):
        digest(NOWHERE, message)
