"""The adapter that a program uses: typed calls with the time of a clock, a durable queue, timers, hooks.

A call returns after what came of it is on disk; messages are delivered after that, by plain functions of the program. It starts no
thread: call `tick` when `next_deadline` has come.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any, Callable, Optional, Union

from . import types as t
from .door import Door
from .machine import LOG, Machine
from .store import Staged, Store

Answer = Union[t.Receipt, t.Rejection]


def wall_clock() -> int:
    return time.time_ns() // 1_000_000


def _nothing(*_: Any) -> None:
    pass


@dataclass
class Host:
    """What a program does with what QM2 hands out; each is called after the commit, and may call the domain again."""

    #: Ledger lines that were kept, for those who follow the event stream.
    publish: Callable[[list[str]], None] = _nothing
    #: A message for its lane. One that comes again has the same (key, delivery), and the receiver does nothing. When this
    #: raises, an at-least-once message stays in the queue.
    deliver: Callable[[t.Message], None] = _nothing
    #: A hook's question; answers now, or returns None and calls `Domain.verdict` later.
    ask: Callable[[str, t.HookKind, str], Optional[t.HookVerdict]] = _nothing
    #: A hook's notice.
    notify: Callable[[t.HookNotice, str], None] = _nothing


class Domain:
    """One domain over one file. Opening it replays the ledger, fires what is due and hands out again what is out."""

    def __init__(
        self, path: str, door: Door, config: dict[str, Any], host: Optional[Host] = None, clock: Callable[[], int] = wall_clock
    ) -> None:
        self.host, self.clock = host or Host(), clock
        self.machine = Machine(door, Store(path))
        self._lanes: list[t.Message] = []
        self._delivering = True  # until all is there again: what waits and what is out may be the same message
        self._call("configure", json.dumps(config))
        self.enabled = bool(config.get("phase1", {}).get("enabled"))
        if self.enabled:
            self.tick()
            self._call("reconcile")
        self._delivering = False
        self.deliver()

    def __enter__(self) -> Domain:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.machine.close()

    # ---- coordination ----

    def submit_plan(self, caller: t.Caller, plan: Union[str, dict[str, Any]]) -> Union[t.PlanReceipt, t.Rejection]:
        text = plan if isinstance(plan, str) else json.dumps(plan)
        return self._call("submit-plan", caller, self.clock(), text)  # type: ignore[no-any-return]

    def submit(self, caller: t.Caller, envelopes: list[t.Envelope]) -> list[Answer]:
        return self._call("submit", caller, self.clock(), envelopes)  # type: ignore[no-any-return]

    def acknowledge(self, caller: t.Caller, keys: list[str]) -> list[Answer]:
        return self._call("acknowledge", caller, self.clock(), keys)  # type: ignore[no-any-return]

    def notice(self, notices: list[t.Notice]) -> list[Answer]:
        return self._call("notice", self.clock(), notices)  # type: ignore[no-any-return]

    def verdict(self, hook_id: str, handler: str, verdict: t.HookVerdict) -> Answer:
        return self._call("verdict", self.clock(), hook_id, handler, verdict)  # type: ignore[no-any-return]

    def answer(
        self, actor: t.Caller, escalation_id: str, digest: str, verdict: t.HumanVerdict, text: Optional[str] = None
    ) -> Answer:
        return self._call("answer", actor, self.clock(), escalation_id, digest, verdict, text)  # type: ignore[no-any-return]

    def describe(self, coordination_id: str = "") -> Any:
        """A coordination, or the domain, as read from its JSON."""
        return json.loads(self._call("describe", coordination_id))

    def explain_wait(self, coordination_id: str, step_id: str) -> Any:
        return json.loads(self._call("explain-wait", coordination_id, step_id))

    def head(self) -> t.LedgerHead:
        return self._call("head")  # type: ignore[no-any-return]

    def state_digest(self) -> str:
        return self._call("state-digest")  # type: ignore[no-any-return]

    # ---- arbitration ----

    def arbitrate(self, contest: t.Contest, policy: t.ArbiterPolicy) -> t.Decision:
        return self._call("arbitrate", contest, policy)  # type: ignore[no-any-return]

    def claim(self, caller: t.Caller, request: t.ClaimRequest) -> Union[t.Grant, t.Rejection]:
        return self._call("claim", caller, self.clock(), request)  # type: ignore[no-any-return]

    def renew(
        self, caller: t.Caller, coordination_id: str, step_id: str, attempt: int, tokens: list[int]
    ) -> Union[list[t.Grant], t.Rejection]:
        return self._call("renew", caller, self.clock(), coordination_id, step_id, attempt, tokens)  # type: ignore[no-any-return]

    def release(self, caller: t.Caller, coordination_id: str, step_id: str, attempt: int, tokens: list[int]) -> Answer:
        return self._call("release", caller, self.clock(), coordination_id, step_id, attempt, tokens)  # type: ignore[no-any-return]

    def check(
        self, resource: str, session: str, token: int, mode: t.Access = "write", regions: Optional[list[t.Region]] = None,
        base_version: Optional[str] = None,
    ) -> t.GuardVerdict:
        """The guard: ask at each write boundary."""
        return self._call(  # type: ignore[no-any-return]
            "check", self.clock(), resource, session, token, mode, regions or [], base_version
        )

    # ---- time ----

    def next_deadline(self) -> Optional[int]:
        """When to call `tick` next, in milliseconds since the epoch; None when no time is awaited."""
        return self._call("next-deadline") if self.enabled else None

    def tick(self) -> None:
        """Fires what is due, and tries messages again that could not be delivered."""
        while self._call("advance", self.clock()):
            pass
        self.deliver()

    # ---- what was handed out ----

    def _call(self, name: str, *arguments: Any) -> Any:
        answer, staged = self.machine.call(name, *arguments)
        self._hand_out(staged)
        return answer

    def _hand_out(self, staged: Staged) -> None:
        if staged.lines:
            self._safely(self.host.publish, staged.lines)
        self._lanes += [message for _, _, message in staged.lane_messages]
        self._lanes = [message for message in self._lanes if message.key not in staged.lane_cancelled]
        for kind, subject in staged.notifications:
            self._safely(self.host.notify, kind, subject)
        for ask in staged.asks:
            verdict = self._safely(self.host.ask, *ask)
            if verdict is not None:
                self.verdict(ask[0], "host", verdict)
        if staged.messages or staged.lane_messages:
            self.deliver()

    def deliver(self) -> None:
        """Delivers what waits. Safe to call from inside a delivery: the outer one goes on with what has come."""
        if self._delivering:
            return
        self._delivering = True
        try:
            place = 0
            while True:
                if self._lanes:
                    self._safely(self.host.deliver, self._lanes.pop(0))
                    continue
                place, message = self.machine.store.queued(place)
                if message is None:
                    return
                try:
                    self.host.deliver(message)
                except Exception:
                    LOG.exception("%s was not delivered and stays in the queue", message.key)
                else:
                    self.machine.store.delivered(message)
        finally:
            self._delivering = False

    @staticmethod
    def _safely(function: Callable[..., Any], *arguments: Any) -> Any:
        """What a program's function raises is logged: the call before it is on disk and has its answer."""
        try:
            return function(*arguments)
        except Exception:
            LOG.exception("a host function raised")
            return None
