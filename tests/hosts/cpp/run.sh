#!/bin/sh
# Runs a program of the C++ host that setup.sh built: `run.sh vectors|rate|soak …`, `run.sh example …`, `run.sh tests …`.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=${QM2_HOSTS_DIR:-$here/../../../target/hosts}/cpp
case ${1:-} in
example) shift && exec "$out/example" "$@" ;;
tests) shift && exec "$here/test_example.sh" "$out/example" "$@" ;;
*) exec "$out/conformance" "$@" ;;
esac
