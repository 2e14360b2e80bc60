"""Measurements: `./dev bench [GROUP...] [--json]`."""
