"""How a round's numbers came about: `swarm explain` and `swarm leaderboard`, apart from asking disk and chain."""
