"""The command ``graphc``."""

from graphc.cli.command import main as main

__all__ = ["main"]
