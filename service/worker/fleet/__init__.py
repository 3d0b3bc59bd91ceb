"""One worker among others: its heartbeat and its lease."""
