"""`swarm explain` and `swarm leaderboard`, without the parts that read disk and chain."""
