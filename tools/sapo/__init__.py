"""SAPO's table in small (arXiv 2509.08721): what do rollouts of others bring, and what brings the filter alone?

    python -m tools.sapo [--out DIR]

Eight peers in one process, each with a model, an optimiser and questions of its own, all from one sparse start that
almost never writes an answer in the form that is graded. Each arm trains every peer on the same number of groups.
"""
