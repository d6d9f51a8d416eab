"""The coordinator contract as the node sees it.

Pure: `contract` (calls, events, errors), and the table and calls in `relay`. I/O: `rpc` (transport and blocks),
`readers` (views), `transactions` (the transaction manager), and `service`, which ties them together.
"""
