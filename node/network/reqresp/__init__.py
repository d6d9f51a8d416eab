"""Request and response over streams: bodies by digest, missed announcements, introductions of newcomers."""
