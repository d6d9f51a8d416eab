"""SQLite and files: journal, snapshots, outbox, vote protection, bodies."""
