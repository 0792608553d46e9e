#!/bin/sh
# Runs a program of the Python host in the environment that setup.sh made: `run.sh vectors|rate|soak …`, `run.sh example …`,
# `run.sh tests …`, `run.sh types`.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
python=${QM2_HOSTS_DIR:-$here/../../../target/hosts}/python/bin/python
export PYTHONPATH="$here" PYTHONDONTWRITEBYTECODE=1
case ${1:-} in
example) shift && exec "$python" "$here/example.py" "$@" ;;
tests) shift && exec "$python" "$here/test_adapter.py" "$@" ;;
types) cd "$here" && exec "$python" -m mypy --strict --cache-dir="$(dirname "$python")/../mypy" . ;;
*) exec "$python" "$here/conformance.py" "$@" ;;
esac
