"""MXNet's name of the base of all errors."""

from graphc.errors import GraphcError as MXNetError

__all__ = ["MXNetError"]
