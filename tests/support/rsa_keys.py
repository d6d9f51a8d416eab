"""RSA keys as RL Swarm writes them."""

from __future__ import annotations

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa


def stored(bits: int = 2048, exponent: int = 65537) -> bytes:
    """Return a new key: libp2p's protobuf around PKCS #1."""
    key = rsa.generate_private_key(exponent, bits)
    der = key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    return b"\x08\x00\x12" + bytes([len(der) & 0x7F | 0x80, len(der) >> 7]) + der
