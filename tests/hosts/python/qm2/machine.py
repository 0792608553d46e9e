"""An instance that never stays dead: stages what a call hands out, keeps it in one transaction before the answer is given, and
after any fault makes a new instance from the ledger and the call once more.

Has no clock, no configuration and delivers nothing; that is the work of `domain`.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from typing import Any, Callable, Optional

from . import types as t
from .door import Door, Instance, InstanceLost
from .store import Staged, Store

LOG = logging.getLogger("qm2")
_SPENT = ("ledger-unavailable", "rebuild")
_REPLAY_LINES = 1000


class Stage:
    """The imports as plain functions: each only notes what it is handed. True says that it was taken."""

    def __init__(self) -> None:
        self.staged = Staged()

    def append(self, lines: list[str]) -> bool:
        self.staged.lines += lines
        return True

    def enqueue(self, messages: list[t.Message]) -> bool:
        self.staged.messages += messages
        return True

    def withdraw(self, keys: list[str]) -> bool:
        self.staged.withdrawn += keys
        return True

    def enqueue_in_lane(self, lane: str, priority: t.Priority, message: t.Message) -> bool:
        self.staged.lane_messages.append((lane, priority, message))
        return True

    def cancel(self, keys: list[str]) -> bool:
        self.staged.lane_cancelled += keys
        return True

    def ask(self, hook_id: str, kind: t.HookKind, subject: str) -> bool:
        self.staged.asks.append((hook_id, kind, subject))
        return True

    def notify(self, kind: t.HookNotice, subject: str) -> bool:
        self.staged.notifications.append((kind, subject))
        return True


class Machine:
    """One domain: an instance, and the store that it is rebuilt from."""

    def __init__(self, door: Door, store: Store, stage: Callable[[], Stage] = Stage) -> None:
        self.door, self.store, self._make_stage = door, store, stage
        self.rebuilds = 0
        self._lock, self._caller = threading.Lock(), 0
        self._instance: Optional[Instance] = None
        self._stage = stage()

    def call(self, name: str, *arguments: Any) -> tuple[Any, Staged]:
        """The answer, and what was handed out with it, which is durable by now. Raises `CallError` where the whole call was
        refused; where it could not be made twice, what kept it from that: nothing of it is kept then."""
        if self._caller == threading.get_ident():
            raise RuntimeError(f"{name} was called from inside a host function; a component cannot be entered twice")
        with self._lock:
            self._caller = threading.get_ident()
            try:
                try:
                    return self._once(name, arguments)
                except (InstanceLost, sqlite3.Error) as fault:
                    self._lose(name, fault)
                try:
                    return self._once(name, arguments)
                except (InstanceLost, sqlite3.Error) as fault:
                    self._lose(name, fault)
                    raise
            finally:
                self._caller = 0

    def _once(self, name: str, arguments: tuple[Any, ...]) -> tuple[Any, Staged]:
        instance = self._instance or self._rebuilt()
        self._stage.staged = staged = Staged()
        try:
            answer = instance.call(name, *arguments)
        except t.CallError as error:
            if error.code in _SPENT:
                raise InstanceLost(str(error)) from error
            raise
        self.store.commit(staged)
        return answer, staged

    def _lose(self, name: str, fault: BaseException) -> None:
        self.rebuilds += 1
        LOG.debug("%s: %s; the instance is made anew", name, fault)
        self.drop()
        if fault.__cause__ is not None and not isinstance(fault.__cause__, Exception):
            raise fault.__cause__  # an interrupt came while a host function ran

    def drop(self) -> None:
        """Throws the instance away; the next call makes one from the ledger."""
        if self._instance is not None:
            self._instance.close()
        self._instance = None

    def _rebuilt(self) -> Instance:
        self._stage = self._make_stage()
        instance = self.door.instance(self._stage)
        seq = 0
        while lines := self.store.lines(after=seq, limit=_REPLAY_LINES):
            instance.call("replay", lines, False)
            seq += len(lines)
        self._instance = instance
        return instance

    def close(self) -> None:
        self.drop()
        self.store.close()
