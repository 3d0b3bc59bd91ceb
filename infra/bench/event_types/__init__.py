"""Event types that only the benchmark loads, by `EVENT_TYPE_MODULES`."""
