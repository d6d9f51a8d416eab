"""Graders that run foreign parsers, in a killable process pool with limits."""
