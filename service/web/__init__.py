"""The web process beside its HTTP side."""
