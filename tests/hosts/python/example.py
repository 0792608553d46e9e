"""Three agents, each a process of its own, finish a plan: two append to the same file, one publishes it after a person said yes.

    python example.py --component qm2-coordination-0.1.0.wasm --data DIR [--yes]

Killed half-way and started again with the same folder it goes on. What QM2 is told and hands out is `qm2.Domain`; here is what a
program adds: processes, and a person.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import logging
import os
import queue
import subprocess
import sys
import threading
from typing import Any, Optional

import qm2

OWNER = qm2.Caller(session="user:me")
PERSON = qm2.Caller(session="user:dana", role="operator")
PLAN_ID = "example"


def plan(folder: str) -> dict[str, Any]:
    notes, published = os.path.join(folder, "notes.txt"), os.path.join(folder, "published.txt")

    def append(name: str) -> dict[str, Any]:
        return {
            "stepId": name, "targetSession": f"agent:{name}", "timeoutMs": 60_000,
            "payload": json.dumps({"do": "append", "file": notes, "count": 5}),
            "claims": [{"resource": "file:notes.txt", "mode": "exclusive", "leaseMs": 30_000}],
        }

    publish = {
        "stepId": "publish", "targetSession": "agent:publish", "timeoutMs": 600_000,
        "payload": json.dumps({"do": "publish", "file": notes, "to": published}),
        "dependsOn": [{"stepId": "left", "on": "success"}, {"stepId": "right", "on": "success"}],
    }
    people = {"levels": [{"sessions": [PERSON.session], "minRole": "operator", "timeoutMs": 600_000}]}
    return {
        "coordinationId": PLAN_ID, "objective": "Write notes together and publish them.", "ownerSession": OWNER.session,
        "steps": [append("left"), append("right"), publish], "reports": "all",
        "failurePolicy": {"retryBudget": 2, "escalationPolicy": "hitl", "human": people},
    }


class Agent:
    """One process, for one attempt. Its lock file is held by the process itself: who gets the lock knows that it is dead."""

    def __init__(self, lines: queue.Queue[tuple[Agent, Optional[str]]], message: qm2.Message, lock: str) -> None:
        self.envelope, self.reported, self._lines = message.envelope, False, lines
        descriptor = os.open(lock, os.O_CREAT | os.O_RDWR)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "agent.py")
        self.process = subprocess.Popen(
            [sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, pass_fds=[descriptor]
        )
        os.close(descriptor)
        tokens = [{"resource": held.resource, "token": held.token} for held in self.envelope.tokens]
        self.tell(envelope={"stepId": self.envelope.step_id, "payload": self.envelope.payload, "tokens": tokens})
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put((self, line))
        self._lines.put((self, None))

    def tell(self, **line: Any) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(line) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended, and its end is read


class Example:
    def __init__(self, folder: str, door: qm2.Door, yes: bool) -> None:
        self.folder, self.yes = folder, yes
        self.lines: queue.Queue[tuple[Agent, Optional[str]]] = queue.Queue()
        self.agents: dict[str, Agent] = {}
        self.questions: list[dict[str, Any]] = []
        os.makedirs(os.path.join(folder, "locks"), exist_ok=True)
        config = {"domain": "example", "phase1": {"enabled": True}}
        # Messages of an earlier run come out while this opens; `domain` is there only afterwards, so they are kept till then.
        self.early: list[qm2.Message] = []
        host = qm2.Host(deliver=self.early.append)
        self.domain = qm2.Domain(os.path.join(folder, "run.db"), door, config, host)
        host.deliver = self.deliver

    def run(self) -> str:
        for message in self.early:
            self.deliver(message)
        receipt = self.domain.submit_plan(OWNER, plan(self.folder))
        if isinstance(receipt, qm2.Rejection):
            raise SystemExit(f"the plan was refused: {receipt}")
        print("the plan goes on" if receipt.replayed else "the plan is new")
        while self.state()["state"] not in ("final", "closed") or self.agents:
            self.step()
        return str(self.state()["terminal"])

    def state(self) -> Any:
        return self.domain.describe(PLAN_ID)

    def step(self) -> None:
        """What an agent says, a question, or a timer."""
        while self.questions:
            self.ask(self.questions.pop(0))
        deadline = self.domain.next_deadline()
        wait = 60.0 if deadline is None else max(0, deadline - self.domain.clock()) / 1000
        try:
            agent, line = self.lines.get(timeout=min(wait, 60.0))
        except queue.Empty:
            self.domain.tick()
            return
        if line is None:
            self.ended(agent)
        else:
            self.said(agent, json.loads(line))

    # ---- what QM2 hands out ----

    def deliver(self, message: qm2.Message) -> None:
        kind, _, key = message.key.partition(":")
        envelope = message.envelope
        if kind == "report":
            print(f"report to {envelope.target_session}: {envelope.step_id or 'the plan'}: {envelope.payload or envelope.outcome}")
            self.domain.acknowledge(OWNER, [message.key])
        elif kind == "escalation":
            assert isinstance(envelope.payload, str)
            self.questions.append(json.loads(envelope.payload))
        elif kind == "answer":
            agent = self.agents.get(f"{envelope.coordination_id}:{envelope.step_id}:{envelope.attempt}")
            if agent:
                agent.tell(answer=envelope.payload or "yes")
        elif kind == "cancel":
            if key in self.agents:
                self.agents[key].process.kill()
        elif kind == "probe":
            if key not in self.agents:
                with open(self.lock(key), "w", encoding="utf-8") as file:
                    fcntl.flock(file, fcntl.LOCK_EX)  # waits for the death of what an earlier run left behind
            self.domain.notice([qm2.Notice(key=key, kind="taken" if key in self.agents else "host-lost")])
        elif message.key not in self.agents:
            self.agents[message.key] = Agent(self.lines, message, self.lock(message.key))
            print(f"{envelope.target_session} starts: {message.key}")
            self.send(envelope, "ack")

    def lock(self, key: str) -> str:
        return os.path.join(self.folder, "locks", key.replace(":", "_"))

    # ---- what agents say ----

    def send(self, to: qm2.Envelope, intent: qm2.Intent, **members: Any) -> None:
        """An envelope of an agent to QM2."""
        envelope = qm2.Envelope(
            coordination_id=to.coordination_id, step_id=to.step_id, attempt=to.attempt, source_session=to.target_session,
            target_session=to.source_session, intent=intent, created_at_ms=self.domain.clock(), **members,
        )
        (answer,) = self.domain.submit(qm2.Caller(session=to.target_session), [envelope])
        if isinstance(answer, qm2.Rejection):
            print(f"refused: {intent} of {to.step_id}: {answer.message}")

    def said(self, agent: Agent, line: dict[str, Any]) -> None:
        if "check" in line:
            held = line["check"]
            verdict = self.domain.check(held["resource"], agent.envelope.target_session, held["token"])
            agent.tell(allowed=verdict.allowed, reason=verdict.reason)
        elif "question" in line:
            question = qm2.Question(number=1, text=line["question"])
            self.send(agent.envelope, "escalate", question=question)
        elif "report" in line:
            agent.reported = True
            self.send(agent.envelope, "report", outcome="completed", payload=line["report"])

    def ended(self, agent: Agent) -> None:
        envelope = agent.envelope
        del self.agents[f"{envelope.coordination_id}:{envelope.step_id}:{envelope.attempt}"]
        code = agent.process.wait()
        if not agent.reported:
            failure = qm2.Failure(class_="retryable", code="exit", message=f"the agent ended with {code}")
            self.send(envelope, "report", outcome=failure)

    # ---- a person ----

    def ask(self, question: dict[str, Any]) -> None:
        print(f"question to {PERSON.session}: {question['question']}")
        if self.yes:
            word = "yes"
        elif sys.stdin.isatty():
            word = input("yes or no? ").strip()
        else:
            raise SystemExit("nobody is here to answer; start again on a terminal, or with --yes")
        verdict: qm2.HumanVerdict = "approve" if word == "yes" else "deny"
        answer = self.domain.answer(PERSON, question["escalationId"], question["digest"], verdict, word)
        print(f"{PERSON.session} says {verdict}" if isinstance(answer, qm2.Receipt) else f"not taken: {answer.message}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--component", default="qm2-coordination-0.1.0.wasm")
    parser.add_argument("--core", help="the core module, instead of the component")
    parser.add_argument("--door", choices=["records", "json"], default="json")
    parser.add_argument("--data", default="qm2-example")
    parser.add_argument("--yes", action="store_true", help="answer every question with yes")
    options = parser.parse_args()
    logging.basicConfig()
    folder = os.path.abspath(options.data)
    os.makedirs(folder, exist_ok=True)
    door: qm2.Door = qm2.Core(options.core) if options.core else qm2.Component(options.component).door(options.door)
    example = Example(folder, door, options.yes)
    terminal = example.run()
    head, chain = example.domain.head(), example.domain.machine.store.verify()
    example.domain.close()
    with open(os.path.join(folder, "notes.txt"), encoding="utf-8") as file:
        written = sorted(file.read().splitlines())
    kept = written == sorted(f"{step} {number}" for step in ("left", "right") for number in range(5))
    print(f"{terminal}; {len(written)} lines in notes.txt, {'none lost' if kept else 'some LOST'}")
    print(f"ledger: {chain.seq} records, chain {'holds' if chain == head else 'BROKEN'}, head {chain.hash}")
    return 0 if terminal == "success" and kept and chain == head else 1


if __name__ == "__main__":
    sys.exit(main())
