"""What must survive: the ledger, and messages that were not delivered yet. SQLite, one transaction for a call.

One process owns the file. Knows no component; `machine` says what to keep, `domain` what was delivered.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from dataclasses import dataclass, field
from typing import Optional

from . import form
from . import schema as s
from . import types as t

_SCHEMA = """
CREATE TABLE IF NOT EXISTS ledger (seq INTEGER PRIMARY KEY, line TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS queue (place INTEGER PRIMARY KEY, key TEXT NOT NULL, delivery INTEGER NOT NULL, message TEXT NOT NULL,
    UNIQUE (key, delivery)) STRICT;
"""
_WRITE, _READ = form.writer(s.record(t.Message)), form.reader(s.record(t.Message))
_ZEROS, _HASH = "0" * 64, len(',"hash":""}') + 64


class BrokenChain(Exception):
    """A line of the ledger was changed, lost or added."""


@dataclass(slots=True)
class Staged:
    """What one call handed out, in the order in which it was said."""

    lines: list[str] = field(default_factory=list)
    messages: list[t.Message] = field(default_factory=list)
    withdrawn: list[str] = field(default_factory=list)
    lane_messages: list[tuple[str, t.Priority, t.Message]] = field(default_factory=list)
    lane_cancelled: list[str] = field(default_factory=list)
    asks: list[tuple[str, t.HookKind, str]] = field(default_factory=list)
    notifications: list[tuple[t.HookNotice, str]] = field(default_factory=list)


class Store:
    """A file, or `:memory:`."""

    def __init__(self, path: str) -> None:
        self.path = path
        # Autocommit: transactions are begun and ended by hand, in `commit`.
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.executescript(_SCHEMA)

    def commit(self, staged: Staged) -> None:
        """Keeps all of it or, when this raises, nothing."""
        if not (staged.lines or staged.messages or staged.withdrawn):
            return
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._db.executemany("INSERT INTO ledger (line) VALUES (?)", ((line,) for line in staged.lines))
            for message in staged.messages:
                # A redelivery replaces the one before, if that was not delivered yet; the same pair is the same message.
                self._db.execute("DELETE FROM queue WHERE key = ? AND delivery < ?", (message.key, message.delivery))
                self._db.execute(
                    "INSERT OR IGNORE INTO queue (key, delivery, message) VALUES (?, ?, ?)",
                    (message.key, message.delivery, json.dumps(_WRITE(message), ensure_ascii=False)),
                )
            self._db.executemany("DELETE FROM queue WHERE key = ?", ((key,) for key in staged.withdrawn))
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def lines(self, after: int = 0, limit: int = 1000) -> list[str]:
        """So many lines of the ledger after this seq."""
        rows = self._db.execute("SELECT line FROM ledger WHERE seq > ? ORDER BY seq LIMIT ?", (after, limit))
        return [line for (line,) in rows]

    def queued(self, place: int = 0) -> tuple[int, Optional[t.Message]]:
        """The oldest message after this place that was not delivered yet, and its own place."""
        row = self._db.execute("SELECT place, message FROM queue WHERE place > ? ORDER BY place LIMIT 1", (place,)).fetchone()
        return (row[0], _READ(json.loads(row[1]))) if row else (place, None)

    def delivered(self, message: t.Message) -> None:
        self._db.execute("DELETE FROM queue WHERE key = ? AND delivery = ?", (message.key, message.delivery))

    def verify(self) -> t.LedgerHead:
        """Recomputes the hash chain without QM2; its end."""
        head, seq = _ZEROS, 0
        while chunk := self.lines(after=seq):
            for line in chunk:
                seq += 1
                hashed, stored = line[:-_HASH] + "}", line[-66:-2]
                record = json.loads(hashed)
                if record["seq"] != seq or record["prev"] != head or hashlib.sha256(hashed.encode()).hexdigest() != stored:
                    raise BrokenChain(f"the ledger is broken at record {seq}")
                head = stored
        return t.LedgerHead(seq=seq, hash=head)

    def close(self) -> None:
        self._db.close()
