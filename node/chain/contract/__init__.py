"""The coordinator contract behind one interface: ours and RL Swarm's."""
