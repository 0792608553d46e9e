#!/bin/sh
# The example killed at different lines of what it prints and started again with the same folder: it must go on and lose nothing.
# `test_example.sh PROGRAM --component FILE`
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkfifo "$folder/out"
for lines in 1 2 4 6 8; do
    data=$folder/$lines
    "$@" --yes --data "$data" >"$folder/out" &
    pid=$!
    head -n "$lines" <"$folder/out" >/dev/null
    kill -9 "$pid" 2>/dev/null || true
    wait "$pid" || true
    "$@" --yes --data "$data" >"$folder/log" 2>&1 || { cat "$folder/log"; echo "killed after $lines lines: it did not go on"; exit 1; }
    grep -q 'none lost' "$folder/log" && grep -q 'chain holds' "$folder/log" || { cat "$folder/log"; exit 1; }
done
echo '{"example":"killed 5 times","passed":5}'
