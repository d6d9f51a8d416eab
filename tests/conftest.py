"""What all tests share."""

from hypothesis import settings

# How long an example takes is the machine's business: benchmarks measure, tests do not.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
