"""Runs the vectors (`tests/vectors/README.md`) through a door, and compares exactly.

First on bare instances, the three-instance end included; then through the adapter's `Machine`, where at a call that the file's
name chooses a host function raises, or calls the component that is calling it: the instance must be rebuilt and the vector end the
same. Knows nothing of what the answers mean.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from typing import Any, Callable, Optional

import qm2
from qm2 import form
from qm2 import schema as s

#: By name of the import that goes wrong; the last calls an export from inside whichever import comes first.
FAULTS = ("append", "enqueue", "withdraw", "enqueue_in_lane", "cancel", "ask", "notify", "enter")
_OUT = ("lines", "messages", "withdrawn", "laneMessages", "laneCancelled", "asks", "notifications")
_MESSAGE = form.writer(s.record(qm2.Message))


class Differs(Exception):
    """The first difference."""


def same(what: str, wanted: Any, got: Any) -> None:
    # True == 1 in Python, and 1 == 1.0: compare the texts, whose members are sorted, instead of the values.
    texts = [json.dumps(value, sort_keys=True, ensure_ascii=False) for value in (wanted, got)]
    if texts[0] != texts[1]:
        raise Differs(f"{what}\nwanted: {texts[0]}\n   got: {texts[1]}")


def handed_out(staged: qm2.Staged) -> dict[str, Any]:
    """In the form of a vector: each list left out where it is empty."""
    lists: dict[str, list[Any]] = {
        "lines": staged.lines,
        "messages": [_MESSAGE(message) for message in staged.messages],
        "withdrawn": staged.withdrawn,
        "laneMessages": [
            {"lane": lane, "priority": priority, "message": _MESSAGE(message)} for lane, priority, message in staged.lane_messages
        ],
        "laneCancelled": staged.lane_cancelled,
        "asks": [{"hookId": hook, "kind": kind, "subject": subject} for hook, kind, subject in staged.asks],
        "notifications": [{"kind": kind, "subject": subject} for kind, subject in staged.notifications],
    }
    return {name: entries for name, entries in lists.items() if entries}


class Recorder(qm2.Stage):
    """Keeps what it is given until it is asked, and refuses lines when it is told to."""

    refuses = False

    def append(self, lines: list[str]) -> bool:
        return not self.refuses and super().append(lines)

    def take(self) -> dict[str, Any]:
        staged, self.staged = self.staged, qm2.Staged()
        return handed_out(staged)


class Bare:
    """A bare instance and a ledger beside it."""

    def __init__(self, door: qm2.Door, lines: Optional[list[str]] = None, at_once: int = 1000) -> None:
        self.door, self.ledger = door, list(lines or [])
        self.start(at_once)

    def start(self, at_once: int = 1000) -> None:
        self.recorder = Recorder()
        self.instance = self.door.instance(self.recorder)
        for first in range(0, len(self.ledger), at_once):
            self.instance.call("replay", self.ledger[first : first + at_once], False)

    def call(self, name: str, arguments: tuple[Any, ...]) -> tuple[Any, dict[str, Any]]:
        answer = self.instance.call(name, *arguments)
        return answer, self.take()

    def take(self) -> dict[str, Any]:
        out = self.recorder.take()
        self.ledger += out.get("lines", [])
        return out

    def replayed(self, lines: list[str]) -> None:
        self.ledger += lines

    def lose(self, name: str, arguments: tuple[Any, ...]) -> None:
        try:
            self.instance.call(name, *arguments)
        except qm2.CallError:
            pass
        self.restart()

    def refuse(self) -> None:
        self.recorder.refuses = True

    def restart(self) -> None:
        self.close()
        self.start()

    def close(self) -> None:
        self.instance.close()


class Faulty(qm2.Stage):
    """Goes wrong once."""

    def __init__(self, plan: Plan, call: Callable[[str], Any]) -> None:
        super().__init__()
        self._plan, self._call = plan, call
        for name in FAULTS[:-1]:
            setattr(self, name, self._wrapped(name, getattr(self, name)))

    def _wrapped(self, name: str, taken: Callable[..., bool]) -> Callable[..., bool]:
        def wrapped(*arguments: Any) -> bool:
            if self._plan.armed and self._plan.fault in (name, "enter"):
                self._plan.armed, self._plan.fired = False, self._plan.fired + 1
                if self._plan.fault == "enter":
                    self._call("head")
                raise OSError(f"{name} goes wrong here")
            return taken(*arguments)

        return wrapped


class Plan:
    """Which host function goes wrong, and from which step on; by the file's name, so that every run is the same."""

    def __init__(self, name: str) -> None:
        digest = hashlib.sha256(name.encode()).digest()
        self.fault, self._from = FAULTS[digest[0] % len(FAULTS)], digest[1]
        self.armed, self.fired = False, 0

    def arm(self, index: int, count: int) -> None:
        if index == self._from % count:
            self.armed = True


class Rebuilding:
    """The adapter, over a store in memory."""

    def __init__(self, door: qm2.Door, plan: Plan) -> None:
        def enter(name: str) -> Any:
            return self.machine._instance.call(name)  # type: ignore[union-attr]

        self.machine = qm2.Machine(door, qm2.Store(":memory:"), lambda: Faulty(plan, enter))

    def call(self, name: str, arguments: tuple[Any, ...]) -> tuple[Any, dict[str, Any]]:
        answer, staged = self.machine.call(name, *arguments)
        return answer, handed_out(staged)

    def take(self) -> dict[str, Any]:
        """What a call that was refused handed out: nothing, since it was not kept."""
        return {}

    def replayed(self, lines: list[str]) -> None:
        self.machine.store.commit(qm2.Staged(lines=lines))

    def lose(self, name: str, arguments: tuple[Any, ...]) -> None:
        kept = self.machine.store.commit
        self.machine.store.commit = lambda staged: None  # type: ignore[method-assign]
        try:
            self.machine.call(name, *arguments)
        except qm2.CallError:
            pass
        self.machine.store.commit = kept  # type: ignore[method-assign]
        self.restart()

    def restart(self) -> None:
        self.machine.drop()

    @property
    def ledger(self) -> list[str]:
        return self.machine.store.lines(limit=1 << 30)

    def close(self) -> None:
        self.machine.close()


def call_step(player: Any, step: dict[str, Any]) -> None:
    name = step["call"]["call"]
    function = s.EXPORTS[name]
    arguments = form.read_arguments(function, step["call"])
    wanted = {member: step[member] for member in ("answer", "error", *_OUT) if member in step}
    got: dict[str, Any] = {}
    try:
        answer, out = player.call(name, arguments)
        got = {"answer": form.write_answer(function, answer), **out}
        if name == "replay":
            player.replayed(arguments[0])
    except qm2.CallError as error:
        got = {"error": form.write_error(error), **player.take()}
    same(name, wanted, got)


def end_of(player: Any) -> dict[str, Any]:
    head = form.write_answer(s.EXPORTS["head"], player.call("head", ())[0])["head"]
    digest = player.call("state-digest", ())[0]
    try:
        reconcile = player.call("reconcile", ())[1]
    except qm2.CallError as error:
        reconcile = {"error": form.write_error(error), **player.take()}
    return {"head": head, "stateDigest": digest, "reconcile": reconcile}


def three_ends(door: qm2.Door, player: Any, wanted: dict[str, Any], restored: bool) -> None:
    same("the end of the instance that made the run", wanted, end_of(player))
    if not restored:
        replayed = Bare(door, player.ledger, at_once=7)
        same("the end of one made by replay", wanted, end_of(replayed))
        replayed.close()
    other, cursor = Bare(door), None
    while True:
        piece = player.call("snapshot", (cursor, 2000))[0]
        other.instance.call("restore", piece.chunk, piece.next is None)
        cursor = piece.next
        if cursor is None:
            break
    same("the end of one made of a snapshot", wanted, end_of(other))
    other.close()


def play(door: qm2.Door, player: Any, steps: list[dict[str, Any]], end: Optional[dict[str, Any]], plan: Optional[Plan]) -> None:
    restored = False
    for index, step in enumerate(steps):
        if plan:
            plan.arm(index, len(steps))
        try:
            if "refuseAppends" in step:
                player.refuse()
            elif "restart" in step:
                player.restart()
            elif "lost" in step:
                call = step["lost"]
                player.lose(call["call"], form.read_arguments(s.EXPORTS[call["call"]], call))
            else:
                restored |= step["call"]["call"] == "restore" and "answer" in step
                call_step(player, step)
        except Differs as differs:
            raise Differs(f"step {index + 1}: {differs}") from None
    if plan:
        plan.armed = False
    if end:
        three_ends(door, player, end, restored)


def full_runs(vector: dict[str, Any]) -> list[tuple[int, list[dict[str, Any]], Optional[dict[str, Any]]]]:
    steps: dict[int, list[dict[str, Any]]] = {}
    runs = []
    for run in vector["runs"]:
        begins = run.get("begins")
        before = steps[begins["run"]][: begins["steps"]] if begins else []
        steps[run["run"]] = before + run["steps"]
        runs.append((run["run"], steps[run["run"]], run.get("end")))
    return runs


def check(door: qm2.Door, name: str, vector: dict[str, Any]) -> int:
    """How many rebuilds there were."""
    if vector["format"] != 1:
        raise Differs(f"format {vector['format']} is not known")
    rebuilds = 0
    for number, steps, end in full_runs(vector):
        # A ledger that lines do not tell whole, or are refused for, cannot be rebuilt from.
        rebuildable = not any("refuseAppends" in step or step.get("call", {}).get("call") == "restore" for step in steps)
        plan = Plan(name)
        players: list[tuple[Any, Optional[Plan]]] = [(Bare(door), None)]
        if rebuildable:
            players.append((Rebuilding(door, plan), plan))
        for player, how in players:
            try:
                play(door, player, steps, end, how)
            except (Differs, qm2.CallError, qm2.InstanceLost) as differs:
                after = f" after {plan.fault} went wrong" if how and plan.fired else ""
                raise Differs(f"run {number}{after}: {differs}") from differs
            finally:
                player.close()
        rebuilds += plan.fired
    return rebuilds


def run(door: qm2.Door, folder: str, host: str) -> bool:
    started = time.monotonic()
    names = sorted(name for name in os.listdir(folder) if name.endswith(".json"))
    passed = rebuilds = 0
    for name in names:
        with open(os.path.join(folder, name), encoding="utf-8") as file:
            vector = json.load(file)
        try:
            rebuilds += check(door, name, vector)
            passed += 1
        except Exception as error:
            print(f"{door.name}: {name}: {error!r}" if not isinstance(error, Differs) else f"{door.name}: {name}: {error}", file=sys.stderr)
    says = {"host": host, "door": door.name, "vectors": len(names), "passed": passed, "rebuilds": rebuilds,
            "seconds": round(time.monotonic() - started, 1)}
    print(json.dumps(says, separators=(",", ":")), flush=True)
    return passed == len(names) and len(names) > 0 and rebuilds > 100
