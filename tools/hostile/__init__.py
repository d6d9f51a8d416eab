"""Learning from hostile peers: what three hostile peers of ten do to the accuracy of the other seven.

    python -m tools.hostile [--out DIR]

Every peer has a built-in model, real trainer and real machine; all are in one process, from one dense start. Whatever
a peer receives goes the way it goes in a node: an encoded body, the check of bodies, the machine's rule which bodies
are used, the trainer's choice of external groups, the update with truncated importance weights.
"""
