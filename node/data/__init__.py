"""Data sets: questions and reference answers."""
