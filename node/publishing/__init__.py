"""Services that follow the bus and publish what the node learned: model hub, experiment trackers."""
