"""What a model takes of a device, worked out before it is loaded."""
