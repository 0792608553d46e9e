"""Puts what the hosts printed into one table, and tests the bounds between them.

Reads JSON lines as `.ci/hosts` collects them: `vectors` and `rate` of every host and door. Does not measure.
"""

import json
import sys

# The least share of wasmtime's own rate at batch 100, through the same door in the same run.
BOUNDS = {"node": 0.30, "python": 0.10}


def main(paths: list[str]) -> int:
    rows: dict[tuple[str, str], dict] = {}
    for path in paths:
        with open(path, encoding="utf-8") as lines:
            for line in lines:
                said = json.loads(line)
                row = rows.setdefault((said["host"], said["door"]), {})
                if "batch" in said:
                    row[said["batch"]] = said["envelopesPerSecond"]
                else:
                    row |= said
    if not rows:
        print("no host said anything", file=sys.stderr)
        return 1
    print(f"{'host':<24}{'door':<9}{'vectors':>9}{'rebuilds':>10}{'at 1/s':>10}{'at 100/s':>10}{'of wasmtime':>13}")
    wrong = []
    for (host, door), row in rows.items():
        passed, vectors = row.get("passed", 0), row.get("vectors", 0)
        base = rows.get(("wasmtime", door), {}).get(100)
        share = row[100] / base if base and 100 in row else None
        cells = f"{passed}/{vectors}"
        shown = "" if share is None else f"{share:.2f}"
        print(
            f"{host:<24}{door:<9}{cells:>9}{row.get('rebuilds', 0):>10}"
            f"{row.get(1, 0):>10,}{row.get(100, 0):>10,}{shown:>13}"
        )
        if not vectors or passed != vectors:
            wrong.append(f"{host}, {door}: {vectors - passed} of {vectors} vectors do not hold")
        if row.get("rebuilds", 0) < 100:
            wrong.append(f"{host}, {door}: only {row.get('rebuilds', 0)} instances were rebuilt")
        if not row.get(1) or not row.get(100):
            wrong.append(f"{host}, {door}: a rate is missing")
        bound = BOUNDS.get(host.split()[0])
        if door == "json" and bound and share is not None and share < bound:
            wrong.append(f"{host}, {door}: {share:.2f} of wasmtime's rate; at least {bound:.2f} is wanted")
    for says in wrong:
        print(says, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
