"""The node: one process, one event bus, a pure machine that decides, services that carry out."""
