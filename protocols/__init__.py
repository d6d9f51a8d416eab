"""What peers of a swarm must agree on: messages, assignment, schedule, games, ranking, votes. Pure."""
