"""The child process that owns the model, and the link to it."""
