"""One connection that writes: it opens the database, migrates it forward, and runs named statements inside transactions."""

import logging
import sqlite3
from pathlib import Path
from typing import Any, Final

from penstock.domain.errors import Fenced, PenstockError
from penstock.store.sealing import Vault, seal, unseal
from penstock.store.statements import Rows, migrations, statements

OLDEST_SQLITE: Final = (3, 35, 0)
LOG_PAGES: Final = 1000
"""Pages of log after which it is moved into the database within a commit, which then takes some milliseconds longer.
Larger logs were measured to be slower: every page by which the file grows makes its fsync dearer."""
MOST_LOG: Final = 64 << 20
"""Bytes to which a log that one large transaction has blown up shrinks again."""

log = logging.getLogger(__name__)


def connect(path: Path, *, fsync: bool) -> sqlite3.Connection:
    """Open a connection to the database file; transactions are begun and ended by hand."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=512, timeout=5)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {'FULL' if fsync else 'OFF'}")
    connection.execute("PRAGMA temp_store = MEMORY")
    connection.execute("PRAGMA secure_delete = OFF")  # some builds wipe what they free, through the log
    return connection


class Session:
    """Run statements for the writer, and remember what it must know between transactions.

    `fresh` counts the tasks of each project that are not filed yet, `filed` is the id up to which they are: both are
    hints that may be too large after a rollback; statements ask the database itself.
    """

    def __init__(self, path: Path, *, fsync: bool, key_ttl: float, vault: Vault | None = None) -> None:
        if sqlite3.sqlite_version_info < OLDEST_SQLITE:
            raise PenstockError(
                f"This Python has SQLite {sqlite3.sqlite_version}; Penstock needs 3.35 or newer. Use a newer Python build."
            )
        self.connection = connect(path, fsync=fsync)
        self.connection.execute("PRAGMA cache_size = -32768")
        self.connection.execute(f"PRAGMA wal_autocheckpoint = {LOG_PAGES}")
        self.connection.execute(f"PRAGMA journal_size_limit = {MOST_LOG}")
        self._log = path.with_name(path.name + "-wal")
        self.key_ttl = key_ttl
        self.vault = vault
        self.epoch = 0
        self.fresh: dict[int, int] = {}
        self.filed: dict[int, int] = {}
        self._statements = statements()
        self._position = 0

    def prepare(self) -> None:
        """Migrate forward, see that every secret is sealed, and take ownership, each in one transaction."""
        self._migrate()
        self._seal_all()
        self.connection.execute("BEGIN IMMEDIATE")
        self.epoch = self.value("take_over")
        self.connection.execute("COMMIT")
        self._position = self.epoch << 40
        for (project,) in self.connection.execute("SELECT id FROM projects").fetchall():
            self.filed[project] = self.value("filed", project)
            self.fresh[project] = self.value("fresh", project)

    def _migrate(self) -> None:
        known = migrations()
        (present,) = self.connection.execute("PRAGMA user_version").fetchone()
        if present > known[-1][0]:
            raise PenstockError(
                f"This data directory was written by a newer Penstock (its schema is {present}, this one knows "
                f"{known[-1][0]}). Nothing was changed; start it with that version or a newer one."
            )
        scripts = [text for number, text in known if number > present]
        if scripts:
            script = "\n".join(["BEGIN IMMEDIATE;", *scripts, f"PRAGMA user_version = {known[-1][0]};", "COMMIT;"])
            try:
                self.connection.executescript(script)
            except sqlite3.Error:
                self.rollback()
                raise

    def _seal_all(self) -> None:
        """Seal what is not sealed by the present key. What stood in clear is wiped from the files.

        Raises `PenstockError` if something was sealed by a key that is not there."""
        if self.vault is None or not (self._to_seal("objects") or self._to_seal("versions")):
            return
        self.connection.execute("PRAGMA secure_delete = ON")
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            count = self.reseal()
            self.connection.execute("COMMIT")
        except BaseException:
            self.rollback()
            raise
        log.warning("The secrets of %d functions, pipelines and versions were sealed with the present key.", count)
        try:
            self.connection.execute("VACUUM")  # pages that were let go of before may still have them in clear
            self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except sqlite3.Error as error:
            log.warning("Parts of the database that are not used any more may have secrets in clear still: %s", error)
        self.connection.execute("PRAGMA secure_delete = OFF")

    def _to_seal(self, table: str) -> list[Any]:
        assert self.vault is not None
        return self.run(f"{table}_to_seal", self.vault.current or "-").fetchall()

    def reseal(self) -> int:
        """Seal with the present key, in the transaction, whatever is not; return how many settings were changed."""
        if self.vault is None:
            return 0
        count = 0
        for table, write in (("objects", "seal_object"), ("versions", "seal_version")):
            for *key, settings in self._to_seal(table):
                self.run(write, *key, seal(unseal(settings, self.vault), self.vault))
                count += 1
        return count

    def begin(self) -> None:
        """Begin a transaction. Raises `Fenced` if a newer owner has opened the store."""
        self.connection.execute("BEGIN IMMEDIATE")
        if self.value("epoch") != self.epoch:
            raise Fenced(
                "Another server has taken over this data directory; this one must not write any more. Stop it: "
                "what it had not written runs again under the new owner."
            )

    def commit(self) -> None:
        """Make the transaction durable."""
        self.connection.execute("COMMIT")

    def rollback(self) -> None:
        """Undo the transaction, if one is open."""
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")

    def checkpoint(self) -> None:
        """Move what is in the log into the database as far as readers let it."""
        self.connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def spare(self, room: int | None) -> None:
        """Be sparing of the disk while it has only that much room, in bytes; None ends it.

        Outcomes are appended to the log. If all of the log fits into the database now, it is begun anew and needs no
        further room; if not, moving it there by halves would use up the room that it needs to grow.
        """
        self.connection.execute(f"PRAGMA wal_autocheckpoint = {LOG_PAGES if room is None else 0}").fetchall()
        if room is not None and self._log.exists() and self._log.stat().st_size < room:
            self.checkpoint()

    def run(self, name: str, *values: Any) -> sqlite3.Cursor:
        """Run a plain statement."""
        return self.connection.execute(self._statements[name].text, values)

    def value(self, name: str, *values: Any) -> Any:
        """Return the only column of a statement's first row; None if there is no row."""
        row = self.run(name, *values).fetchone()
        return None if row is None else row[0]

    def run_rows(self, name: str, rows: Rows, *values: Any) -> list[Any]:
        """Run a statement over a batch, in pieces; return the first column of each piece's answer, if it has one."""
        statement = self._statements[name]
        answers: list[Any] = []
        for count, flat, bodies in rows.chunks():
            text, size = statement.sized(count)
            fixed = (*values, bodies) if rows.bodies else values
            padding = [0] * (rows.width * (size - count))
            row = self.connection.execute(text, [*fixed, *flat, *padding]).fetchone()
            if row is not None:
                answers.append(row[0])
        return answers

    def next_position(self) -> int:
        """Return a number larger than every one before, those of earlier owners included."""
        self._position += 1
        return self._position

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()
