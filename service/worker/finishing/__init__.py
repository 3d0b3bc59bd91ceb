"""How outcomes are written, counted and acked."""
