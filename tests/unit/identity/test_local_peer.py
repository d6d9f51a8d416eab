"""This node as the peers of a deployment meet it."""

from msgspec.structs import replace

from node.identity import NodeKey
from node.identity.local_peer import address_of_peer_id, local_peer
from node.identity.rsa import RsaIdentity, bound_peer
from protocols.typed_data import Domain
from tests.support.rsa_keys import stored

OURS = Domain(1, "0x" + "c0" * 20, b"s" * 32)
KEY = NodeKey(bytes([1]) * 32)


def test_a_node_key_is_all_that_a_node_is() -> None:
    """Without an RSA identity the key is name, address and host, on either contract, and nothing needs a statement."""
    for domain in (OURS, replace(OURS, salt=bytes(32))):
        me = local_peer(KEY, None, domain)
        assert (me.peer_id, me.address, me.network, me.statement) == (KEY.peer_id, KEY.address, KEY, None)
        assert address_of_peer_id(me.peer_id) == me.address


def test_an_rsa_identity_names_the_node() -> None:
    """It keeps its peer id. Our contract knows it by its session key's address, RL Swarm's by its peer id's stand-in;
    the statement holds for the deployment at hand."""
    rsa = RsaIdentity(stored())
    for domain, address in ((OURS, KEY.address), (replace(OURS, salt=bytes(32)), address_of_peer_id(rsa.peer_id))):
        me = local_peer(KEY, rsa, domain)
        assert (me.peer_id, me.address, me.key) == (rsa.peer_id, address, KEY)
        assert me.statement is not None
        assert bound_peer(me.statement, domain, KEY.address) == rsa.peer_id
