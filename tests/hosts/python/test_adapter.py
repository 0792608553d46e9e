"""What the adapter promises and no vector shows: wrong arguments do no harm, faults cost nothing, and the example survives kill -9.

    run.sh tests --component FILE --core FILE
"""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import unittest
from typing import Any

import qm2

ARGUMENTS = sys.argv[1:]
PATHS = dict(zip(ARGUMENTS[::2], ARGUMENTS[1::2]))
OWNER, AGENT = qm2.Caller(session="user:owner"), qm2.Caller(session="agent:a")
CONFIG = {"domain": "test", "phase1": {"enabled": True}}
PLAN = {
    "coordinationId": "c", "objective": "test", "ownerSession": "user:owner",
    "steps": [{"stepId": "a", "targetSession": "agent:a", "timeoutMs": 1000}],
}


def doors() -> list[qm2.Door]:
    component = qm2.Component(PATHS["--component"])
    return [component.door("records"), component.door("json"), qm2.Core(PATHS["--core"])]


DOORS = doors()


def report(**members: Any) -> qm2.Envelope:
    given: dict[str, Any] = {
        "coordination_id": "c", "step_id": "a", "attempt": 1, "source_session": "agent:a", "target_session": "user:owner",
        "intent": "report", "created_at_ms": 0, "outcome": "completed", **members,
    }
    return qm2.Envelope(**given)


class Adapter(unittest.TestCase):
    def domain(self, door: qm2.Door, path: str = ":memory:", host: Any = None) -> qm2.Domain:
        domain = qm2.Domain(path, door, CONFIG, host, clock=lambda: 1)
        self.addCleanup(domain.close)
        return domain

    def test_a_wrong_argument_is_refused_before_the_call_and_does_no_harm(self) -> None:
        wrong = [
            report(created_at_ms=2**64), report(created_at_ms=-1), report(created_at_ms=2**53 + 1), report(attempt=2**32),
            report(intent="reports"), report(outcome="done"), report(payload="\ud800"), report(created_at_ms=True),
            report(created_at_ms=1.0), report(source_session=None), report(extensions=("x",)), report(payload=b"x"),
        ]
        for door in DOORS:
            with self.subTest(door.name):
                domain = self.domain(door)
                domain.submit_plan(OWNER, PLAN)
                head = domain.head()
                for envelope in wrong:
                    with self.assertRaises((qm2.FormError, UnicodeEncodeError)):
                        domain.submit(AGENT, [envelope])
                self.assertEqual(domain.head(), head)
                self.assertEqual(domain.machine.rebuilds, 0)
                (receipt,) = domain.submit(AGENT, [report()])
                self.assertIsInstance(receipt, qm2.Receipt)

    def test_a_commit_that_fails_loses_nothing_and_delivers_nothing(self) -> None:
        for door in DOORS:
            with self.subTest(door.name):
                delivered: list[str] = []
                domain = self.domain(door, host=qm2.Host(deliver=lambda message: delivered.append(message.key)))
                store, commit, failures = domain.machine.store, domain.machine.store.commit, [1]

                def failing(staged: qm2.Staged) -> None:
                    if staged.lines and failures:
                        failures.pop()
                        raise sqlite3.OperationalError("disk full")
                    commit(staged)

                store.commit = failing  # type: ignore[method-assign]
                receipt = domain.submit_plan(OWNER, PLAN)
                self.assertIsInstance(receipt, qm2.PlanReceipt)
                self.assertEqual((domain.machine.rebuilds, delivered), (1, ["c:a:1"]))
                failures[:] = [1, 1]
                with self.assertRaises(sqlite3.OperationalError):
                    domain.submit(AGENT, [report()])
                (receipt_,) = domain.submit(AGENT, [report()])
                assert isinstance(receipt_, qm2.Receipt)
                self.assertEqual(receipt_.status, "accepted")
                self.assertEqual(store.verify(), domain.head())

    def test_calling_from_inside_an_import_is_an_error_and_costs_one_rebuild(self) -> None:
        for door in DOORS:
            with self.subTest(door.name):
                said: list[str] = []
                domain = self.domain(door)
                stage = domain.machine._stage

                def enter(lines: list[str]) -> bool:
                    try:
                        domain.head()
                    except RuntimeError as error:
                        said.append(str(error))
                    raise OSError("no")

                stage.append = enter  # type: ignore[method-assign]
                self.assertIsInstance(domain.submit_plan(OWNER, PLAN), qm2.PlanReceipt)
                self.assertEqual(domain.machine.rebuilds, 1)
                self.assertIn("cannot be entered twice", said[0])

    def test_an_interrupt_inside_an_import_comes_out_and_nothing_is_kept(self) -> None:
        for door in DOORS:
            with self.subTest(door.name):
                domain = self.domain(door)
                head = domain.head()

                def interrupted(lines: list[str]) -> bool:
                    raise KeyboardInterrupt

                domain.machine._stage.append = interrupted  # type: ignore[method-assign]
                with self.assertRaises(KeyboardInterrupt):
                    domain.submit_plan(OWNER, PLAN)
                self.assertEqual(domain.head(), head)

    def test_a_message_that_could_not_be_delivered_stays_across_a_restart(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "run.db")

            def refuse(message: qm2.Message) -> None:
                raise OSError("nobody there")

            with self.assertLogs("qm2"):
                first = qm2.Domain(path, DOORS[1], CONFIG, qm2.Host(deliver=refuse), clock=lambda: 1)
                first.submit_plan(OWNER, PLAN)
                first.close()
            got: list[tuple[str, int]] = []
            host = qm2.Host(deliver=lambda message: got.append((message.key, message.delivery)))
            self.domain(DOORS[0], path, host)
            self.assertEqual(got, [("c:a:1", 1)])

    def test_a_ledger_that_was_changed_is_found(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "run.db")
            domain = qm2.Domain(path, DOORS[1], CONFIG, clock=lambda: 1)
            domain.submit_plan(OWNER, PLAN)
            domain.close()
            with sqlite3.connect(path) as db:
                db.execute("UPDATE ledger SET line = replace(line, 'agent:a', 'agent:b') WHERE seq = 2")
            db.close()
            store = qm2.Store(path)
            with self.assertRaises(qm2.BrokenChain):
                store.verify()
            store.close()
            with self.assertRaises(qm2.CallError) as caught:
                qm2.Domain(path, DOORS[1], CONFIG)
            self.assertEqual((caught.exception.code, caught.exception.seq), ("read-only", 2))


class Example(unittest.TestCase):
    def test_killed_at_any_line_and_started_again_it_goes_on(self) -> None:
        command = [sys.executable, "-u", "example.py", "--component", PATHS["--component"], "--yes", "--data"]
        here = os.path.dirname(os.path.abspath(__file__))
        for lines in (1, 2, 4, 6, 8):
            with self.subTest(lines), tempfile.TemporaryDirectory() as folder:
                first = subprocess.Popen([*command, folder], stdout=subprocess.PIPE, text=True, cwd=here)
                assert first.stdout is not None
                for _ in range(lines):
                    first.stdout.readline()
                first.send_signal(signal.SIGKILL)
                first.wait()
                first.stdout.close()
                again = subprocess.run([*command, folder], capture_output=True, text=True, cwd=here, timeout=120)
                self.assertEqual(again.returncode, 0, again.stdout + again.stderr)
                self.assertIn("none lost", again.stdout)
                self.assertIn("chain holds", again.stdout)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
