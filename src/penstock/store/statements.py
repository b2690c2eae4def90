"""Named SQL statements, read from `sql/*.sql`; what a batch needs of them is written out here and nowhere else.

A statement whose header says `-- rows: id name …` takes a batch: `{rows}` in it becomes VALUES with that many rows, so that
one statement, run outside Python's global lock, does the work of thousands. Batches are padded with rows of zeros up to
one of a few sizes, so that SQLite finds nearly every statement prepared. Bodies travel as one concatenated blob, rows
carry where theirs starts and how long it is: binding one number costs a fifteenth of binding one `bytes` or `None`.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

SQL: Final = Path(__file__).parent / "sql"
MOST_ROWS: Final = 512
MOST_BODIES: Final = 4 << 20
SIZES: Final = sorted({1, 2, 3} | {size for i in range(2, 10) for size in (1 << i, 3 << (i - 1)) if size <= MOST_ROWS})

_BLOCK: Final = re.compile(r"^-- (name|fragment): (.+)\n(?:-- rows: (.+)\n)?", re.MULTILINE)
_FRAGMENT: Final = re.compile(r"\{((?!rows)[^}]+)\}")


class Statement:
    """Hold one named statement; `columns` are those of its rows, none for a plain statement."""

    __slots__ = ("_first", "_text", "_texts", "columns", "name")

    def __init__(self, name: str, text: str, columns: Sequence[str]) -> None:
        self.name = name
        self.columns = columns
        self._text = text
        self._texts: dict[int, str] = {}
        self._first = max((int(n) for n in re.findall(r"\?(\d+)", text)), default=0) + 1

    @property
    def text(self) -> str:
        """Return the SQL of a plain statement."""
        return self._text

    def sized(self, count: int) -> tuple[str, int]:
        """Return the SQL for `count` rows and the number of rows it really takes, at least as many."""
        size = next(size for size in SIZES if size >= count)
        text = self._texts.get(size)
        if text is None:
            text = self._texts[size] = self._text.replace("{rows}", self._values(size))
        return text, size

    def _values(self, size: int) -> str:
        """Write the VALUES; the first place is numbered explicitly, behind those of the statement itself."""
        names = ", ".join(f"column{i} AS {name}" for i, name in enumerate(self.columns, 1))
        row = "(" + ", ".join("?" * len(self.columns)) + ")"
        first = row.replace("?", f"?{self._first}", 1)
        return f"(SELECT {names} FROM (VALUES {', '.join([first, *[row] * (size - 1)])}))"


class Rows:
    """Hold the rows of a batch, flat, and the bodies they point to.

    `bodies` has lists of bodies by the column that says where each starts; the next column says how long each is
    (-1: none). Both columns are filled in when the batch is run, so that batches can be joined by adding them.
    """

    __slots__ = ("bodies", "flat", "width")

    def __init__(self, width: int, flat: list[Any], bodies: Mapping[int, list[bytes | None]]) -> None:
        self.width = width
        self.flat = flat
        self.bodies = bodies

    def __len__(self) -> int:
        return len(self.flat) // self.width

    def chunks(self) -> Iterator[tuple[int, list[Any], bytes]]:
        """Yield (number of rows, their values, their bodies in one) in pieces of bounded size."""
        total = len(self)
        if total <= MOST_ROWS and (not self.bodies or sum(self._sizes(0, total)) <= MOST_BODIES):
            yield total, *self._piece(0, total)
            return
        start = 0
        while start < total:
            stop = min(start + MOST_ROWS, total)
            sizes = accumulate(self._sizes(start, stop))
            within = sum(1 for size in sizes if size <= MOST_BODIES)
            stop = start + max(within, 1) if self.bodies else stop
            yield stop - start, *self._piece(start, stop)
            start = stop

    def _sizes(self, start: int, stop: int) -> Iterator[int]:
        """Yield how many bytes of bodies each row has."""
        columns = [column[start:stop] for column in self.bodies.values()]
        if len(columns) == 1 and None not in columns[0]:
            return map(len, columns[0])  # type: ignore[arg-type]
        return (sum(len(body) for body in row if body is not None) for row in zip(*columns, strict=True))

    def _piece(self, start: int, stop: int) -> tuple[list[Any], bytes]:
        width = self.width
        flat = self.flat[start * width : stop * width]
        parts: list[bytes] = []
        at = 1
        for column, every in self.bodies.items():
            bodies = every[start:stop]
            if None in bodies:
                sizes = [-1 if body is None else len(body) for body in bodies]
                lengths = [max(size, 0) for size in sizes]
                parts.extend(body for body in bodies if body is not None)
            else:
                sizes = lengths = [len(body) for body in bodies]  # type: ignore[arg-type]
                parts.extend(bodies)  # type: ignore[arg-type]
            starts = list(accumulate(lengths, initial=at))
            at = starts.pop()
            flat[column::width] = starts
            flat[column + 1 :: width] = sizes
        return flat, b"".join(parts)


def join(batches: Sequence[Rows]) -> Rows:
    """Return one batch with the rows of all, in order."""
    if len(batches) == 1:
        return batches[0]
    first = batches[0]
    flat: list[Any] = []
    bodies: dict[int, list[bytes | None]] = {column: [] for column in first.bodies}
    for batch in batches:
        flat += batch.flat
        for column, joined in bodies.items():
            joined.extend(batch.bodies[column])
    return Rows(first.width, flat, bodies)


def _blocks(text: str) -> Iterator[tuple[str, str, Sequence[str], str]]:
    """Yield (name or fragment, its name, columns, SQL) of a file."""
    heads = list(_BLOCK.finditer(text))
    for head, following in zip(heads, [*heads[1:], None], strict=True):
        body = text[head.end() : following.start() if following else None]
        lines = [line for line in body.splitlines() if line and not line.startswith("--")]
        yield head[1], head[2], (head[3] or "").split(), "\n".join(lines).rstrip().rstrip(";")


def _functions(text: str) -> str:
    text = re.sub(r"moment\((\w+)\)", r"CAST(\1 * 2147483648.0 AS INTEGER)", text)
    return re.sub(r"exact\((\w+)\)", r"CASE WHEN \1 IS NOT NULL THEN quote(\1) END", text)


@cache
def statements() -> Mapping[str, Statement]:
    """Return every named statement."""
    blocks = [block for path in sorted(SQL.glob("*.sql")) for block in _blocks(path.read_text())]
    fragments = {name: text for what, name, _, text in blocks if what == "fragment"}
    return {
        name: Statement(name, _functions(_FRAGMENT.sub(lambda use: fragments[use[1]], text)), columns)
        for what, name, columns, text in blocks
        if what == "name"
    }


def migrations() -> list[tuple[int, str]]:
    """Return (number, SQL) of every migration, in order."""
    return [(int(path.name.split("_")[0]), path.read_text()) for path in sorted((SQL / "migrations").glob("*.sql"))]
