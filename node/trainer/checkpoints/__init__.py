"""The trainer's state on disk, and the model in it as a directory of its own."""
