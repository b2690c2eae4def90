"""What commands print: tables and details for people, JSON for programs."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

_PIPED_WIDTH = 1000


def _console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else _PIPED_WIDTH
    return Console(stderr=stderr, width=width, highlight=False, markup=False, emoji=False, soft_wrap=True)


def out() -> Console:
    """Return the console for answers."""
    return _console(stderr=False)


def err() -> Console:
    """Return the console for everything that is not the answer."""
    return _console(stderr=True)


def clean(text: str) -> str:
    """Return text without what would steer the reader's terminal."""
    return "".join([c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text])


def say(text: str) -> None:
    """Print a line of the answer."""
    out().print(Text(clean(text)))


def complain(text: str, lead: str = "Error: ") -> None:
    """Print a line on stderr."""
    err().print(Text.assemble((lead, "bold red"), clean(text)))


def note(text: str) -> None:
    """Print a remark on stderr, out of the answer's way."""
    err().print(Text(clean(text), style="dim"))


def counted(number: int, thing: str) -> str:
    """Return a number with what it counts."""
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"


def print_json(value: Any) -> None:
    """Print a value as JSON, moments with milliseconds as the server gives them."""
    plain = msgspec.to_builtins(value, builtin_types=(datetime,))
    sys.stdout.write(json.dumps(plain, indent=2, ensure_ascii=False, default=moment) + "\n")


def moment(value: datetime) -> str:
    """Return a moment as RFC 3339 in UTC, with milliseconds."""
    return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def ago(value: datetime | None) -> str:
    """Return how long ago a moment was, or how far ahead it is, in one unit."""
    if value is None:
        return ""
    elapsed = (datetime.now(UTC) - value).total_seconds()
    return f"{span(elapsed)} ago" if elapsed >= 0 else f"in {span(-elapsed)}"


def when(value: datetime | None) -> str:
    """Return how far ahead a moment is, and the moment."""
    return f"{ago(value)}, at {moment(value)}" if value else ""


def expected(value: datetime | None, because: str | None) -> str:
    """Return a moment that is foretold; `because` says why it is a lower bound only, or why there is none."""
    if value is None:
        return f"nobody knows: {because}" if because else ""
    return f"{ahead(value)} at the earliest, at {moment(value)} ({because})" if because else when(value)


def ahead(value: datetime) -> str:
    """Return how far ahead a moment is that is foretold; one that passed on the way here is now."""
    return "now" if value <= datetime.now(UTC) else ago(value)


def figure(value: float) -> str:
    """Return a number of any size that is no count, short and without an exponent."""
    if 0 < value < 0.01:
        return "<0.01"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def span(seconds: float) -> str:
    """Return a duration in one unit, for people."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    for unit, size in (("min", 60), ("h", 3600), ("d", 86400)):
        if seconds < size * 120 or unit == "d":
            return f"{seconds / size:.0f} {unit}"
    raise AssertionError


def brief(value: Any, width: int = 60) -> str:
    """Return a setting as short text: text as it is, anything else as JSON."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= width else text[: width - 1] + "…"


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], none: str) -> None:
    """Print rows as a table; numbers stand right. Prints `none` if there are no rows."""
    rows = [[("" if cell is None else cell) for cell in row] for row in rows]
    console = out()
    if title:
        console.print(Text(title, style="bold"))
    if not rows:
        console.print(Text(none, style="dim"))
        return
    made = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for place, column in enumerate(columns):
        numeric = all(isinstance(row[place], int | float) for row in rows)
        made.add_column(column, justify="right" if numeric else "left", no_wrap=place == 0)
    for row in rows:
        made.add_row(*[Text(clean(str(cell))) for cell in row])
    console.print(made, soft_wrap=False)


def details(pairs: Mapping[str, Any]) -> None:
    """Print names and values, one pair a line; empty values are left out."""
    shown = {name: value for name, value in pairs.items() if value not in (None, "", [], {})}
    width = max(map(len, shown), default=0)
    console = out()
    for name, value in shown.items():
        text = moment(value) if isinstance(value, datetime) else brief(value, 2000)
        console.print(Text.assemble((f"{name:<{width}}  ", "dim"), clean(text)))
