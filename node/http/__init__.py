"""Status, health and metrics over HTTP; subscribers of the bus only."""
