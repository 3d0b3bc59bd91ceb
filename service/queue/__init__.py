"""Redis: the broker, its messages and scripts. A message is only a hint."""
