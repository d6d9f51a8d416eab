"""A whole swarm on one machine: chain, contract, bootnode, nodes; live view, summary, learning curves."""
