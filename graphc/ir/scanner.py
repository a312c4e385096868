"""The lexical part of the graph parser: a position in a text, and what stands there."""

from __future__ import annotations

import json
import math
import re
from json import JSONDecodeError

from graphc.errors import Location, ParseError
from graphc.ir.dim import Dim, parse_dim

MAX_DIM_CHARACTERS = 4000
MAX_DIM_TERMS = 20_000
"""Bound on the terms that multiplying out the parentheses of a size may give."""

_SPACE = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
_BLANK = re.compile(r"[ \t\r]*")
_PLAIN = re.compile(r"[A-Za-z0-9_.]+", re.ASCII)
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*", re.ASCII)
_KEY = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)[ \t]*=[ \t]*(?=graph\b)", re.ASCII)
_DIGITS = re.compile(r"[0-9]{1,9}(?![A-Za-z0-9_.])", re.ASCII)
_FLOAT = re.compile(
    r"-?(?:inf|[0-9]+\.[0-9]*(?:e[+-]?[0-9]+)?|[0-9]+e[+-]?[0-9]+)(?![A-Za-z0-9_.])", re.ASCII
)
_STRING = re.compile(r'"(?:[^"\\\x00-\x1f]|\\.)*"')
_LOCATION = re.compile(
    r'[ \t]*([A-Za-z0-9_.<>+-]+|"(?:[^"\\\n]|\\.)*"):([0-9]{1,9})'
    r'(?: ([A-Za-z0-9_.]+|"(?:[^"\\\n]|\\.)*"))?[ \t\r]*',
    re.ASCII,
)
_SHOWN = 60


def shown(text: str) -> str:
    """Return a quoted name for a message, cut short where it is long."""
    return repr(text) if len(text) <= _SHOWN else f"{text[:_SHOWN]!r}... ({len(text)} characters)"


class Scanner:
    """A position in a text."""

    def __init__(self, text: str, source: str = "") -> None:
        self.text = text
        self.source = source
        self.position = 0

    def error(self, message: str, position: int | None = None) -> ParseError:
        """Return an error that names line and column, by default of what comes next."""
        at = self.position if position is None else position
        line = self.text.count("\n", 0, at) + 1
        column = at - self.text.rfind("\n", 0, at)
        place = f"{self.source}, line" if self.source else "line"
        return ParseError(f"{place} {line}, column {column}: {message}")

    def expected(self, what: str, position: int | None = None) -> ParseError:
        """Return an error that names line, column, what is expected there and what stands there."""
        at = self.position if position is None else position
        rest = self.text[at : at + 20].split("\n")[0]
        found = "the end of the text" if at >= len(self.text) else repr(rest or "end of line")
        return self.error(f"expected {what}, found {found}", position)

    def at_end(self) -> bool:
        """Return whether nothing is left."""
        return self.position >= len(self.text)

    def skip(self) -> None:
        """Pass over spaces, line breaks and comments."""
        self.position = self._next()

    def _next(self) -> int:
        found = _SPACE.match(self.text, self.position)
        assert found is not None
        return found.end()

    def here(self, token: str) -> bool:
        """Return whether ``token`` stands exactly here."""
        return self.text.startswith(token, self.position)

    def looking_at(self, token: str) -> bool:
        """Return whether ``token`` comes next; passes over nothing, comments may be locations."""
        return self.text.startswith(token, self._next())

    def accept(self, token: str) -> bool:
        """Pass over ``token`` if it comes next; return whether it did."""
        found = self.looking_at(token)
        if found:
            self.position = self._next() + len(token)
        return found

    def take(self, token: str, expected: str = "") -> None:
        """Pass over ``token``, which must come next."""
        if not self.accept(token):
            self.skip()
            raise self.expected(expected or repr(token))

    def looking_at_word(self, word: str) -> bool:
        """Return whether a keyword comes next."""
        found = _IDENTIFIER.match(self.text, self._next())
        return found is not None and found[0] == word

    def word(self, word: str, expected: str = "") -> None:
        """Pass over a keyword, which must come next."""
        found = self.looking_at_word(word)
        self.skip()
        if not found:
            raise self.expected(expected or repr(word))
        self.position += len(word)

    def _match(self, pattern: re.Pattern[str], expected: str) -> str:
        found = pattern.match(self.text, self.position)
        if found is None:
            raise self.expected(expected)
        self.position = found.end()
        return found[0]

    def identifier(self, expected: str) -> str:
        """Return the identifier that comes next."""
        self.skip()
        return self._match(_IDENTIFIER, expected)

    def digits(self, expected: str) -> str:
        """Return the number of a result that stands here, without leading zeros."""
        start = self.position
        found = self._match(_DIGITS, expected)
        if found != str(int(found)):
            raise self.error("a number has no leading zeros", start)
        return found

    def name(self, expected: str) -> str:
        """Return the plain or quoted name that stands here."""
        return self.string() if self.here('"') else self._match(_PLAIN, expected)

    def string(self) -> str:
        """Return the JSON string that comes next."""
        self.skip()
        start = self.position
        found = _STRING.match(self.text, start)
        if found is None:
            raise self.expected("a string that ends on its line")
        try:
            value = json.loads(found[0])
        except JSONDecodeError as error:
            raise self.error(f"a string with a bad escape ({error.msg})", start) from None
        self.position = found.end()
        return str(value)

    def whole_word(self) -> str:
        """Return the identifier that comes next, passed over, or ''."""
        self.skip()
        found = _IDENTIFIER.match(self.text, self.position)
        if found is None:
            return ""
        self.position = found.end()
        return found[0]

    def float_literal(self) -> float | None:
        """Return the number with a point or an exponent that comes next, or None."""
        self.skip()
        found = _FLOAT.match(self.text, self.position)
        if found is None:
            return None
        self.position = found.end()
        return float(found[0])

    def nested_key(self) -> str | None:
        """Return the attribute whose graph comes next (``body = graph ...``), or None."""
        self.skip()
        found = _KEY.match(self.text, self.position)
        if found is None:
            return None
        self.position = found.end()
        return found[1]

    def dim(self, stops: str, expected: str = "a size") -> Dim:
        """Return the size that reaches to one of ``stops`` outside parentheses."""
        self.skip()
        start = end = self.position
        depth = 0
        limit = min(len(self.text), start + MAX_DIM_CHARACTERS + 1)
        while end < limit and not (depth == 0 and self.text[end] in stops):
            if self.text[end] in "\n#":
                break
            depth += {"(": 1, ")": -1}.get(self.text[end], 0)
            end += 1
        text = self.text[start:end].strip()
        if end - start > MAX_DIM_CHARACTERS:
            raise self.error(f"a size is longer than {MAX_DIM_CHARACTERS} characters")
        if not text:
            raise self.expected(expected)
        if expanded_terms(text) > MAX_DIM_TERMS:
            raise self.error("a size multiplies too many sums")
        try:
            dim = parse_dim(text)
        except (ValueError, ZeroDivisionError, RecursionError) as error:
            reason = str(error).partition(": ")[2] or str(error)
            raise self.expected(f"{expected} ({reason[:120]})", start) from None
        self.position = end
        return dim

    def comment(self) -> None:
        """Pass over a comment in the rest of this line."""
        self.location()

    def location(self) -> Location | None:
        """Pass over a comment in the rest of this line; return the location that it is, if any."""
        blank = _BLANK.match(self.text, self.position)
        assert blank is not None
        if not self.text.startswith("#", blank.end()):
            return None
        stop = self.text.find("\n", blank.end())
        stop = len(self.text) if stop < 0 else stop
        found = _LOCATION.fullmatch(self.text, blank.end() + 1, stop)
        self.position = stop
        if found is None:
            return None
        try:
            file, scope = (_unquoted(found[n] or "") for n in (1, 3))
        except JSONDecodeError:
            return None
        return Location(file, int(found[2]), scope)


def _unquoted(text: str) -> str:
    return str(json.loads(text)) if text.startswith('"') else text


def expanded_terms(text: str) -> int:
    """Return a bound on the terms of a size once its products are multiplied out."""
    if ")*" not in text.replace(" ", "") and "*(" not in text.replace(" ", ""):
        return 1
    names = re.findall(r"[A-Za-z_][A-Za-z0-9_.]*", text)
    variables = len({*names} - {"min", "max"})
    return math.comb(variables + len(names), variables)
