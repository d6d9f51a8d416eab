"""The coordinator contract as plain functions over calls, logs and errors: ours and RL Swarm's. Pure: no I/O.

`node.chain.readers` asks the contract's views over RPC. An import rule keeps the two apart.
"""
