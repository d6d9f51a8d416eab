"""Graders that run third-party parsers, in a killable process pool with limits."""
