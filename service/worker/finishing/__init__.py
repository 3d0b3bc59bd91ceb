"""How outcomes are written and counted, and what follows from them."""
