"""The coordinator contract: Solidity source, committed artifact, typed access."""
