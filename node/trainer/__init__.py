"""Trains the model in a child process: the parent side (service), the child (worker) and what it is made of."""
