"""SQLite and files: journal, snapshots, outbox, round reports, bodies."""
