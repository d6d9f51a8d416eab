"""`python -m node.cli`: the command `swarm` without its script."""

from node.cli import main

main()
