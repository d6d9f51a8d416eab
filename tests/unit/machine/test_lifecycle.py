"""What a start tells the machine."""

from node.machine import inputs as i
from node.machine.state import initial
from node.machine.step import step
from node.machine.views import status
from protocols.manifest import Manifest

KEY, STAND_IN = f"0x{1:040x}", f"0x{2:040x}"


def test_the_node_is_what_its_deployment_knows_it_as() -> None:
    """What it counts as is learnt with the contract, at the start; an older entry changes nothing."""
    state = initial(KEY, Manifest(name="a"))
    for started, me in ((i.NodeStarted(), KEY), (i.NodeStarted(me=STAND_IN), STAND_IN), (i.NodeStarted(), STAND_IN)):
        state, _ = step(state, i.Stamped(1.0, started))
        assert state.me == me
    state, _ = step(state, i.Stamped(2.0, i.PeerRegistered(STAND_IN, 0)))
    assert status(state).registered
