"""The transaction manager: the one owner of a key's nonces, over a durable queue.

Pure: `fees`, `retry_schedule`, `send_errors`, and the records in `tx_queue`. The rest sends, and waits for receipts.
"""
