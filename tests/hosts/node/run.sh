#!/bin/sh
# Runs the Node host: run.sh [--newer] vectors|rate|soak|example|killed ARGS… after setup.sh. With --newer under the newer Node that
# setup.sh got, else under the one in the search path. Builds first what has changed: jco makes the types from the component, tsc
# checks and compiles.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
build=$here/../../../target/hosts/js
node=node
if [ "${1-}" = --newer ]; then
    node=$(echo "$build"/newer/node_modules/node-linux-*/bin/node)
    [ -x "$node" ] || { echo "run.sh: setup.sh has got no newer Node" >&2; exit 2; }
    shift
fi
[ $# -gt 0 ] || { echo "usage: run.sh [--newer] vectors|rate|soak|example|killed ARGS…" >&2; exit 2; }

component=
previous=
for argument; do
    [ "$previous" = --component ] && component=$argument
    previous=$argument
done
[ -f "$component" ] || { echo "run.sh: --component FILE is missing" >&2; exit 2; }

PATH=$build/node_modules/.bin:$PATH
# One build at a time.
exec 9>"$build/lock"
flock 9
project=$build/node
wanted=$(cd "$here" && find . -type f -print0 | sort -z | xargs -0 cat | cat - "$component" | sha256sum)
if [ "$(cat "$project/built" 2>/dev/null)" != "$wanted" ]; then
    rm -rf "$project"
    mkdir -p "$project"
    cp -r "$here/." "$project"
    jco transpile "$component" -o "$project/gen" --name qm2 -I sync --strict --no-nodejs-compat --no-wasi-shim -q
    tsc -p "$project"
    echo "$wanted" >"$project/built"
fi

exec 9>&-
program=$1
shift
case $program in
build) exit ;;
example | killed)
    [ $program = example ] && program=main
    exec "$node" "$project/dist/example/$program.js" --cache "$build/cache" "$@"
    ;;
soak) exec "$node" --expose-gc "$project/dist/conformance/main.js" soak --cache "$build/cache" "$@" ;;
*) exec "$node" "$project/dist/conformance/main.js" "$program" --cache "$build/cache" "$@" ;;
esac
