"""The README and docs/, run as written and compared with the code."""
