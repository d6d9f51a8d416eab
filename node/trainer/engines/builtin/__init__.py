"""The built-in model: small, made on the spot, no download."""
