"""The worker process: where its jobs come from, how they run, and what becomes of them."""
