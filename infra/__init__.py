"""How PulseQueue is started, tested and shipped."""
