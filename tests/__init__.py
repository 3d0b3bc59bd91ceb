"""Tests; `tests.factories` makes what they need."""
