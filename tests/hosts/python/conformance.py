"""The conformance program: `vectors`, `rate` and `soak`, for each door. `run.sh` starts it.

What each does is in a module of its own; here are only the arguments.
"""

from __future__ import annotations

import argparse
import platform
import sys

import qm2
import rate
import soak
import vectors


def main() -> int:
    parser = argparse.ArgumentParser(prog="conformance")
    parser.add_argument("what", choices=["vectors", "rate", "soak"])
    parser.add_argument("--component", required=True)
    parser.add_argument("--core")
    parser.add_argument("--vectors")
    parser.add_argument("--workload")
    parser.add_argument("--calls", type=int, default=1_000_000)
    parser.add_argument("--door", choices=["records", "json", "core"])
    arguments = parser.parse_args()
    component = qm2.Component(arguments.component)
    doors: list[qm2.Door] = [component.door("records"), component.door("json")]
    if arguments.core:
        doors.append(qm2.Core(arguments.core))
    host = f"python {platform.python_version()}"
    good = True
    for door in doors:
        if arguments.door not in (None, door.name):
            continue
        if arguments.what == "vectors":
            good &= vectors.run(door, arguments.vectors, host)
        elif arguments.what == "rate":
            rate.run(door, arguments.workload, host)
        else:
            good &= soak.run(door, arguments.calls, host)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
