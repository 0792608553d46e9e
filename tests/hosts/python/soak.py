"""Many calls on one instance: does memory stay where it is? `soak` of the conformance program."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import qm2

OWNER, AGENT = qm2.Caller(session="user:owner"), qm2.Caller(session="agent:a")
CONFIG = {"domain": "soak", "phase1": {"enabled": True}}
EVERY = 1000
SLACK_BYTES = 8 << 20


def report(plan: str, now: int) -> qm2.Envelope:
    return qm2.Envelope(
        coordination_id=plan, step_id="a", attempt=1, source_session="agent:a", target_session="user:owner", intent="report",
        created_at_ms=now, payload="done", outcome="completed",
    )


def resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Soak:
    """A mix of calls; every now and then a plan that runs to its close."""

    def __init__(self, door: qm2.Door) -> None:
        self.stage = qm2.Stage()
        self.instance = door.instance(self.stage)
        self.now, self.calls = 1, 0
        self.call("configure", json.dumps(CONFIG))
        self.plan("known", reports="all")  # its reports are never acknowledged, so it stays open to repeats
        self.known = [report("known", self.now)]
        self.submit(self.known, "accepted")

    def call(self, name: str, *arguments: Any) -> Any:
        self.stage.staged = qm2.Staged()
        self.calls += 1
        return self.instance.call(name, *arguments)

    def submit(self, envelopes: list[qm2.Envelope], wanted: str) -> None:
        (receipt,) = self.call("submit", AGENT, self.now, envelopes)
        if not isinstance(receipt, qm2.Receipt) or receipt.status != wanted:
            raise SystemExit(f"an envelope was not {wanted}: {receipt}")

    def plan(self, name: str, reports: str = "failures") -> None:
        step = {"stepId": "a", "targetSession": "agent:a", "timeoutMs": 1000, "payload": "go"}
        plan = {"coordinationId": name, "objective": "soak", "ownerSession": OWNER.session, "reports": reports, "steps": [step]}
        receipt = self.call("submit-plan", OWNER, self.now, json.dumps(plan))
        if not isinstance(receipt, qm2.PlanReceipt):
            raise SystemExit(f"a plan was refused: {receipt}")

    def coordination(self) -> None:
        """From a plan to its close."""
        self.now += 1
        name = f"c-{self.calls}"
        self.plan(name)
        self.submit([report(name, self.now)], "accepted")
        reports = [message.key for message in self.stage.staged.messages if message.key.startswith("report:")]
        for receipt in self.call("acknowledge", OWNER, self.now, reports):
            if not isinstance(receipt, qm2.Receipt):
                raise SystemExit(f"a report was not acknowledged: {receipt}")
        state = json.loads(self.call("describe", name))["state"]
        if state != "closed":
            raise SystemExit(f"{name} is {state}")

    def step(self) -> None:
        kind = self.calls % 6
        if self.calls % EVERY == 0:
            self.coordination()
        elif kind == 0:
            self.submit(self.known, "replayed")
        elif kind == 1:
            self.call("advance", self.now)
        elif kind == 2:
            self.call("head")
        elif kind == 3:
            self.call("next-deadline")
        elif kind == 4:
            self.call("describe", "known")
        else:
            self.call("check", self.now, "file:x", "agent:a", 1, "write", [], None)


def run(door: qm2.Door, calls: int, host: str) -> bool:
    soak = Soak(door)
    points = []
    for tenth in range(1, 11):
        while soak.calls < calls * tenth // 10:
            soak.step()
        points.append(resident_bytes())
        says = {"host": host, "door": door.name, "calls": soak.calls, "residentBytes": points[-1],
                "wasmBytes": soak.instance.memory_bytes()}
        print(json.dumps({name: value for name, value in says.items() if value is not None}, separators=(",", ":")), flush=True)
    soak.instance.close()
    grown = points[-1] - points[1]
    if grown > SLACK_BYTES and grown > points[1] // 10:
        print(f"{door.name}: memory grew by {grown} bytes", file=sys.stderr)
        return False
    return True
