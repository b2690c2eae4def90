"""How people write durations, sizes, rates and backoffs, and the numbers they stand for.

The law: `parse(format(x)) == x`, exactly, and `format` gives the shortest form that has a unit. What cannot be read raises
`UnitError`, which says what was found and, where it can be guessed, what was meant. Decimal and binary sizes are kept
apart: 1MB is 10**6 bytes, 1MiB is 2**20.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from math import isfinite
from sys import float_info
from typing import Final

DURATIONS: Final[dict[str, Fraction]] = {
    "w": Fraction(604_800),
    "d": Fraction(86_400),
    "h": Fraction(3_600),
    "m": Fraction(60),
    "s": Fraction(1),
    "ms": Fraction(1, 1000),
}

SIZES: Final[dict[str, int]] = {
    "TiB": 2**40,
    "TB": 10**12,
    "GiB": 2**30,
    "GB": 10**9,
    "MiB": 2**20,
    "MB": 10**6,
    "KiB": 2**10,
    "KB": 10**3,
    "B": 1,
}

AUTO: Final = "auto"
"""What is written instead of a size that is to be learned."""

_WHOLE_DURATIONS: Final = {unit: int(size) for unit, size in DURATIONS.items() if size >= 1}
_LONGEST_TEXT: Final = 400  # the smallest float there is, written out, takes 326 characters
_LARGEST_COUNT: Final = 10**12
_LARGEST_SIZE: Final = 2**63 - 1
_FINEST_COUNT: Final = 1000

_AMOUNT: Final = r"\d+(?:\.\d+)?"
_DURATION: Final = re.compile(rf"(?:{_AMOUNT}(?:ms|[wdhms]))+", re.ASCII)
_DURATION_PART: Final = re.compile(rf"({_AMOUNT})(ms|[wdhms])", re.ASCII)
_NUMBER: Final = re.compile(_AMOUNT, re.ASCII)
_SIZE: Final = re.compile(rf"({_AMOUNT})([KMGT]i?B|B)?", re.ASCII)
_RATE: Final = re.compile(rf"({_AMOUNT})/(\S+)", re.ASCII)

_DURATION_HINT: Final = "write a number and a unit, such as 250ms, 30s, 5m, 2h, 7d or 1w"
_SIZE_HINT: Final = "write a number and a unit, such as 512KB, 256MB or 1GiB"
_RATE_HINT: Final = "write how many per period, such as 2/s, 100/10s, 500/m or 10000/d"
_BACKOFF_HINT: Final = "write the first and the longest wait, such as 1s..5m"

UNLIMITED_HINT: Final = "to have no limit, leave it out; to stop a pipeline, write paused: true"

_LONG_NAMES: Final = re.compile(
    r"(?<![a-z])(?:(milliseconds?|millis|msecs?)|(seconds?|secs?)|(minutes?|mins?)|(hours?|hrs?)|(days?)|(weeks?))(?![a-z])"
)
_SHORT_NAMES: Final = ("ms", "s", "m", "h", "d", "w")


class UnitError(ValueError):
    """Report a quantity that cannot be read; `suggestion` says what was probably meant, or how it is written."""

    def __init__(self, message: str, suggestion: str) -> None:
        super().__init__(f"{message} ({suggestion})")
        self.message, self.suggestion = message, suggestion


@dataclass(frozen=True, slots=True)
class Rate:
    """Allow `n` units in any window of `period` seconds."""

    n: int
    period: float


def shown(value: object) -> str:
    """Return what a user wrote in a form that is short and safe enough for a message."""
    if isinstance(value, str):
        text = value if len(value) <= 40 else value[:39] + "…"
        return f"'{text}'" if text.isprintable() else ascii(text)
    if isinstance(value, int | float):
        if isinstance(value, bool):
            return "true" if value else "false"
        return (
            f"{value:.10g}"
            if isinstance(value, float) or abs(value) <= float_info.max
            else "a number of hundreds of digits"
        )
    return {dict: "a mapping", list: "a list", type(None): "nothing (null)"}.get(type(value), type(value).__name__)


# durations ------------------------------------------------------------------------------------------------------------
def parse_duration(value: object) -> float:
    """Return seconds for "250ms", "30s", "1h30m" or a plain number of seconds."""
    if isinstance(value, str):
        return _parse_duration_text(value)
    seconds = _plain_number(value, "duration", _DURATION_HINT)
    if seconds < 0:
        raise UnitError(f"a duration cannot be negative, and {shown(value)} is", _DURATION_HINT)
    return float(seconds)


def format_duration(seconds: float) -> str:
    """Return the shortest exact form of a duration, such as "30s" for 30.0."""
    if not isfinite(seconds) or seconds < 0:
        raise ValueError(f"{seconds} s is not a duration: it must be finite and not negative")
    return _format_duration(float(seconds))


@lru_cache(maxsize=4096)
def _format_duration(seconds: float) -> str:
    if seconds == int(seconds):
        whole = int(seconds)
        forms = [f"{whole // size}{unit}" for unit, size in _WHOLE_DURATIONS.items() if not whole % size]
    else:
        forms = [format(Decimal(repr(seconds)), "f") + "s"]
        milliseconds = round(Fraction(seconds) * 1000)
        if milliseconds and milliseconds / 1000 == seconds:
            forms.insert(0, f"{milliseconds}ms")
    return min(forms, key=len) if seconds else "0s"


@lru_cache(maxsize=4096)
def _parse_duration_text(text: str) -> float:
    if len(text) < 12 and text.isascii() and text[:-1].isdecimal() and text[-1] in _WHOLE_DURATIONS:
        return float(int(text[:-1]) * _WHOLE_DURATIONS[text[-1]])  # what nearly all are; fractions are slow
    exact = _exact_duration(text)
    if exact is None:
        raise UnitError(
            f"{shown(text)} is not a duration",
            _meant(text, _tidy_duration, _exact_duration, parse_duration, _DURATION_HINT),
        )
    try:
        return float(exact)
    except OverflowError:
        raise UnitError(f"{shown(text)} is longer than any duration can be", _DURATION_HINT) from None


def _exact_duration(text: str) -> Fraction | None:
    if len(text) <= _LONGEST_TEXT:
        if _NUMBER.fullmatch(text):
            return Fraction(text)
        if _DURATION.fullmatch(text):
            return sum((Fraction(n) * DURATIONS[unit] for n, unit in _DURATION_PART.findall(text)), Fraction(0))
    return None


def _tidy_duration(text: str) -> str:
    """Return what a duration in other people's spelling is here: "30 Seconds" → "30s"."""
    text = _LONG_NAMES.sub(lambda match: _SHORT_NAMES[(match.lastindex or 1) - 1], text.lower().replace(",", "."))
    return re.sub(r"\s+|and|\+", "", text)


# sizes ----------------------------------------------------------------------------------------------------------------
def parse_size(value: object) -> int:
    """Return bytes for "256MB" (10**6 each), "1GiB" (2**30) or a plain number of bytes."""
    if isinstance(value, str):
        return _parse_size_text(value)
    size = _plain_number(value, "size", _SIZE_HINT)
    if size < 0 or size != int(size) or size > _LARGEST_SIZE:
        raise UnitError(f"{shown(value)} is not a whole number of bytes", _SIZE_HINT)
    return int(size)


def format_size(size: int) -> str:
    """Return the shortest exact form of a number of bytes, such as "256MB" for 256000000."""
    if not 0 <= size <= _LARGEST_SIZE:
        raise ValueError(f"{size} is not a size: it must be between 0 and 2**63 - 1 bytes")
    forms = [f"{size // unit}{name}" for name, unit in SIZES.items() if not size % unit and (size or unit == 1)]
    return min(forms, key=len)


@lru_cache(maxsize=1024)
def _parse_size_text(text: str) -> int:
    size = _exact_size(text)
    if size is None:
        raise UnitError(f"{shown(text)} is not a size", _meant(text, _tidy_size, _exact_size, parse_size, _SIZE_HINT))
    if size.denominator != 1 or size > _LARGEST_SIZE:
        raise UnitError(f"{shown(text)} is not a whole number of bytes that a machine can have", _SIZE_HINT)
    return int(size)


def _exact_size(text: str) -> Fraction | None:
    match = _SIZE.fullmatch(text) if len(text) <= _LONGEST_TEXT else None
    return Fraction(match[1]) * SIZES[match[2] or "B"] if match else None


def _tidy_size(text: str) -> str:
    """Return what a size in other people's spelling is here: "256 mb" → "256MB", "1Gi" → "1GiB"."""
    match = re.fullmatch(rf"({_AMOUNT})(?:([kmgt])(i?)b?|b(?:ytes?)?)", re.sub(r"\s+", "", text.lower()), re.ASCII)
    return f"{match[1]}{(match[2] or '').upper()}{match[3] or ''}B" if match else text


# rates ----------------------------------------------------------------------------------------------------------------
def parse_rate(value: object) -> Rate:
    """Return the rate that "2/s", "100/10s" or "0.5/s" stands for; a broken count becomes whole: 0.5/s is 1/2s."""
    if isinstance(value, str):
        return _parse_rate_text(value)
    number = _plain_number(value, "rate", _RATE_HINT)
    raise UnitError(f"{shown(value)} is a rate without a period", f"did you mean {number:g}/s?")


def format_rate(rate: Rate) -> str:
    """Return the shortest exact form of a rate, such as "2/s"."""
    period = format_duration(rate.period)
    return f"{rate.n}/{period[1:] if period[0] == '1' and period[1:] in DURATIONS else period}"


@lru_cache(maxsize=4096)
def _parse_rate_text(text: str) -> Rate:
    exact = _exact_rate(text)
    if exact is None:
        raise UnitError(f"{shown(text)} is not a rate", _meant(text, _tidy_rate, _exact_rate, parse_rate, _RATE_HINT))
    count, period = exact
    if not count or not period:
        what = "count" if not count else "period"
        raise UnitError(
            f"the rate {shown(text)} has a {what} of zero, so nothing would ever start",
            UNLIMITED_HINT,
        )
    if count.denominator > _FINEST_COUNT:
        raise UnitError(
            f"the count of {shown(text)} has more than three decimals", "count whole units in a longer period"
        )
    if count.numerator > _LARGEST_COUNT:
        raise UnitError(f"the count of {shown(text)} is larger than 10**12", "leave the rate out to have no limit")
    try:
        return Rate(count.numerator, float(period * count.denominator))
    except OverflowError:
        raise UnitError(f"the period of {shown(text)} is longer than any can be", _RATE_HINT) from None


def _exact_rate(text: str) -> tuple[Fraction, Fraction] | None:
    match = _RATE.fullmatch(text) if len(text) <= _LONGEST_TEXT else None
    if match is None or _NUMBER.fullmatch(match[2]):  # the period must have a unit: 10/60 could mean anything
        return None
    period = DURATIONS.get(match[2]) or _exact_duration(match[2])
    return None if period is None else (Fraction(match[1]), period)


def _tidy_rate(text: str) -> str:
    """Return what a rate in other people's spelling is here: "10 per second" → "10/s", "600rpm" → "600/m"."""
    text = re.sub(r"(?:requests?|req|tasks?|calls?)?\s*(?:/|\bper\b|\ba\b|\bevery\b)\s*", "/", text.lower())
    text = re.sub(r"\s*(?:rp([smhd])|r/([smhd]))$", lambda match: f"/{match[1] or match[2]}", text)
    count, _, period = re.sub(r"[_,]", "", text).partition("/")
    period = _tidy_duration(period) or "s"
    return f"{count.strip()}/{period}{'s' if _NUMBER.fullmatch(period) else ''}"


# backoffs -------------------------------------------------------------------------------------------------------------
def parse_backoff(value: object) -> tuple[float, float]:
    """Return (first, longest) wait in seconds for "1s..5m"."""
    if isinstance(value, str):
        return _parse_backoff_text(value)
    seconds = _plain_number(value, "backoff", _BACKOFF_HINT)
    raise UnitError(f"{shown(value)} is not a range of waits", f"did you mean {seconds:g}s..{seconds:g}s?")


def format_backoff(first: float, longest: float) -> str:
    """Return the shortest exact form of a backoff, such as "1s..5m"."""
    return f"{format_duration(first)}..{format_duration(longest)}"


@lru_cache(maxsize=1024)
def _parse_backoff_text(text: str) -> tuple[float, float]:
    first, dots, longest = text.partition("..")
    if not dots:
        raise UnitError(f"{shown(text)} is not a range of waits", _backoff_meant(text))
    try:
        low, high = _parse_duration_text(first), _parse_duration_text(longest)
    except UnitError as error:
        raise UnitError(f"{shown(text)} is not a range of waits: {error.message}", _backoff_meant(text)) from error
    if low > high:
        raise UnitError(
            f"in {shown(text)} the first wait is longer than the longest", f"did you mean {longest}..{first}?"
        )
    return low, high


def _backoff_meant(text: str) -> str:
    ends = [_tidy_duration(end) for end in re.split(r"\s*(?:\.{2,}|…|–|-|\bto\b|:)\s*", text[:80])]
    if len(text) > 80 or len(ends) > 2 or not all(_DURATION.fullmatch(end) for end in ends):
        return _BACKOFF_HINT
    low, high = sorted((ends[0], ends[-1]), key=_parse_duration_text)
    return f"did you mean {low}..{high}?"


# what they share ------------------------------------------------------------------------------------------------------
def _meant(
    text: str, tidy: Callable[[str], str], read: Callable[[str], object], parse: Callable[[str], object], hint: str
) -> str:
    """Return the text in our spelling as a question, if that would be accepted, else how it is written."""
    tidied = tidy(text[:80])
    if len(text) > 80 or read(tidied) is None:
        return hint
    try:
        parse(tidied)
    except UnitError:
        return hint
    return f"did you mean {tidied}?"


def _plain_number(value: object, what: str, hint: str) -> int | float:
    """Return a number that is neither a truth value nor endless; `what` names the quantity it should be."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= float_info.max:
        raise UnitError(f"{shown(value)} is not a {what}", hint)
    return value
