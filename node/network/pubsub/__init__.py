"""GossipSub: the announcements topic, its validator, limits."""
