#!/bin/sh
# Runs a program of the C++ host that setup.sh built: `run.sh vectors|rate|soak …`, `run.sh example …`.
set -eu
out=${QM2_HOSTS_DIR:-$(cd "$(dirname "$0")" && pwd)/../../../target/hosts}/cpp
case ${1:-} in
example) shift && exec "$out/example" "$@" ;;
*) exec "$out/conformance" "$@" ;;
esac
