"""Numbers that users give: rates, factors, decays."""

from __future__ import annotations

import math
from typing import Any

from graphc.errors import ArgumentError, user_location


def number(owner: str, name: str, value: Any) -> float:
    """Return a setting as a float.

    Negative and infinite numbers pass; NaN would only make everything it meets NaN.

    Parameters
    ----------
    owner : str
        What has the setting, ``"SGD"``.
    name : str
        Of the setting, ``"momentum"``.
    value : object
        A Python or NumPy number, or an array with one element.

    Raises
    ------
    ArgumentError
        When it is no number, or NaN.
    """
    if type(value) is float and value == value:
        return value
    try:
        found = math.nan if isinstance(value, (str, bytes)) else float(value)
    except (TypeError, ValueError, OverflowError):
        found = math.nan
    if math.isnan(found):
        kind = "" if value is None or isinstance(value, float) else f", a {type(value).__name__}"
        raise ArgumentError(
            f"{name} of {owner} must be a number, got {value!r:.80}{kind}",
            remedy=f"Pass a number, {name}=0.1 for example.",
            where=user_location(),
        )
    return found
