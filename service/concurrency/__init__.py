"""General tools: batches, delays, caches, breakers, lanes. They know nothing of jobs."""
