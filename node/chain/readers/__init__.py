"""Reading the coordinator's views and logs over RPC, and finding out which contract is at an address.

What the answers mean is decided in `node.chain.contract`, which does no I/O.
"""
