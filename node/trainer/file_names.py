"""Names in a trainer's directory, for those who read it without torch."""

CHECKPOINTS, CURRENT = "checkpoints", "model"
"""Where checkpoints are kept, and the link to the newest one's model."""

ADAPTER_CONFIG = "adapter_config.json"
"""What a model's directory holds where adapters alone were trained."""
