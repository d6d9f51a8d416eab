"""Repairs of py-libp2p that replace code of the library."""
