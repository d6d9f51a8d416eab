"""The games that a swarm can play."""
