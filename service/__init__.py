"""PulseQueue's web side and everything that both sides share. Imports nothing from `actors`."""
