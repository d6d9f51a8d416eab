"""Tools for organisers, researchers and developers."""
