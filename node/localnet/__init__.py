"""A whole swarm on one machine: chain, contract, bootnode, nodes; watched, summed up, drawn."""
