"""The node as a whole: checks before the start, wiring of the services, its life cycle, several nodes on one
machine."""
