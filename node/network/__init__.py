"""libp2p: announcements, bodies by digest, peer book. The only place that imports libp2p."""
