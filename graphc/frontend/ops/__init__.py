"""Operators with MXNet 1.9's names, arguments and quirks, over the op records of ``ir.ops``."""
