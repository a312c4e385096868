"""Colour, on a terminal only."""

from __future__ import annotations

import os
import re
from typing import TextIO

_PARTS = re.compile(
    r"(?P<comment>#[^\n]*)"
    r"|(?P<text>\"(?:[^\"\\\n]|\\.)*\")"
    r"|(?P<value>%[A-Za-z0-9_.]+)"
    r"|(?P<word>^[ \t]*(?:graph|kernel|plan|def|for|if|else|return|update|where|var|alloc)\b)",
    re.MULTILINE,
)
_CODES = {"comment": "2", "text": "32", "value": "36", "word": "1"}
_DIFF = {"+": "32", "-": "31", "@": "36"}


def wanted(stream: TextIO) -> bool:
    """Return whether to use colour: on a terminal, unless ``NO_COLOR`` is set."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return stream.isatty()


def paint(text: str) -> str:
    """Return a listing with its comments, names and keywords in colour."""
    return _PARTS.sub(lambda m: f"\033[{_CODES[m.lastgroup or 'word']}m{m[0]}\033[0m", text)


def paint_diff(text: str) -> str:
    """Return a unified diff in colour."""
    lines = (
        f"\033[{_DIFF[line[0]]}m{line}\033[0m" if line[:1] in _DIFF else line
        for line in text.split("\n")
    )
    return "\n".join(lines)
