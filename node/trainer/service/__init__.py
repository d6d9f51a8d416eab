"""The node's side of the trainer: starts the worker process, sends it jobs. Loads no torch."""
