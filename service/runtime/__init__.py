"""What every process has: its log, its identity, its garbage, a look at its servers."""
