"""How fast envelopes go in, a door and a batch size at a time: `rate` of the conformance program.

Timed is from native values to native answers, with what is handed out staged as native values; no disk.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any

import qm2
from qm2 import form
from qm2 import schema as s

SECONDS = 1.0


def round_of(door: qm2.Door, calls: list[tuple[str, tuple[Any, ...]]], digest: str) -> tuple[float, int]:
    """Seconds and envelopes of one run on a fresh instance."""
    stage = qm2.Stage()
    instance = door.instance(stage)
    seconds, envelopes = 0.0, 0
    for name, arguments in calls:
        stage.staged = qm2.Staged()
        before = time.perf_counter()
        answer = instance.call(name, *arguments)
        if name == "submit":
            seconds += time.perf_counter() - before
            envelopes += len(answer)
            refused = [item for item in answer if not isinstance(item, qm2.Receipt)]
            if refused:
                raise SystemExit(f"an envelope of the workload was refused: {refused[0]}")
    got = instance.call("state-digest")
    instance.close()
    if got != digest:
        raise SystemExit(f"{door.name}: the state is {got} instead of {digest}")
    return seconds, envelopes


def run(door: qm2.Door, folder: str, host: str) -> None:
    for batch in (1, 100):
        with open(os.path.join(folder, f"batch-{batch}.jsonl"), encoding="utf-8") as file:
            *lines, last = map(json.loads, file)
        calls = [(line["call"], form.read_arguments(s.EXPORTS[line["call"]], line)) for line in lines]
        round_of(door, calls, last["stateDigest"])  # a warm-up
        seconds, envelopes = 0.0, 0
        while seconds < SECONDS:
            more = round_of(door, calls, last["stateDigest"])
            seconds, envelopes = seconds + more[0], envelopes + more[1]
        says = {"host": host, "door": door.name, "batch": batch, "envelopesPerSecond": round(envelopes / seconds)}
        print(json.dumps(says, separators=(",", ":")), flush=True)
