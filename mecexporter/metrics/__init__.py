"""Metrics declared as data, and pure functions that fill them."""
