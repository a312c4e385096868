"""Symbols: graphs composed by hand, typed when they are bound to arrays."""
