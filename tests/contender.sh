#!/bin/sh
# Instructions of one more contender on a resource with 10, 100, 1,000 and 10,000 waiters, counted by callgrind; fails if
# those with 10,000 are more than 4 times those with 10. Needs valgrind. Run from the root of the repository.
set -eu
cargo build --quiet --release --package qm2-core --example contender
program=$(cargo metadata --format-version 1 --no-deps | jq -r .target_directory)/release/examples/contender
out=$(mktemp)
trap 'rm -f "$out"' EXIT
for waiters in 10 100 1000 10000; do
    valgrind --quiet --tool=callgrind --toggle-collect='*one_more*' --callgrind-out-file="$out" "$program" "$waiters"
    count=$(sed -n 's/^summary: *//p; s/^totals: *//p' "$out" | tail -n 1)
    echo "$waiters waiters: $count instructions"
    [ "$waiters" = 10 ] && least=$count
done
[ "$count" -le $((4 * least)) ] || { echo "more than 4 times those of 10 waiters" >&2; exit 1; }
