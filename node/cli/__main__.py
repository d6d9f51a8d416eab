"""`python -m node.cli`: the `swarm` command without its script."""

from node.cli import main

main()
