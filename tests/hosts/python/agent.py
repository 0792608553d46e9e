"""An agent of the example, as a process of its own: reads one message on stdin, then speaks JSON lines with its host.

It knows nothing of QM2 but its envelope: it asks its host before each write, and reports at the end. It ends when its host does.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any


def say(**line: Any) -> None:
    try:
        print(json.dumps(line), flush=True)
    except BrokenPipeError:
        os._exit(1)  # the host is gone, and with it the right to write


def hear() -> Any:
    line = sys.stdin.readline()
    if not line:
        sys.exit(1)
    return json.loads(line)


def read_lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().splitlines()
    except FileNotFoundError:
        return []


def write_lines(path: str, lines: list[str]) -> None:
    with open(path + ".new", "w", encoding="utf-8") as file:
        file.write("".join(line + "\n" for line in lines))
    os.replace(path + ".new", path)


def main() -> None:
    envelope = hear()["envelope"]
    work = json.loads(envelope["payload"])
    if work["do"] == "append":
        for number in range(work["count"]):
            text = f"{envelope['stepId']} {number}"
            lines = read_lines(work["file"])  # read, think, write back: two at once would lose lines
            if text in lines:
                continue  # an earlier attempt wrote it
            time.sleep(0.05)
            for held in envelope["tokens"]:
                say(check=held)
                verdict = hear()
                if not verdict["allowed"]:
                    sys.exit(f"not allowed to write: {verdict['reason']}")
            write_lines(work["file"], [*lines, text])
        say(report=f"{work['count']} lines")
    else:
        lines = read_lines(work["file"])
        say(question=f"Publish {len(lines)} lines?")
        answer = hear()["answer"]
        write_lines(work["to"], lines)
        say(report=f"published; the answer was: {answer}")


if __name__ == "__main__":
    main()
