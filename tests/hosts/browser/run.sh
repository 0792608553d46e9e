#!/bin/sh
# Runs the browser host: run.sh vectors|rate|example ARGS… after setup.sh. Builds first what has changed, with the sources of the
# Node host beside its own.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
build=$here/../../../target/hosts/js
[ $# -gt 0 ] || { echo "usage: run.sh vectors|rate|example ARGS…" >&2; exit 2; }

component=
previous=
for argument; do
    [ "$previous" = --component ] && component=$argument
    previous=$argument
done
"$here/../node/run.sh" build --component "$component"

PATH=$build/node_modules/.bin:$PATH
# One build at a time.
exec 9>"$build/lock"
flock 9
project=$build/browser
wanted=$(cd "$here" && find . -type f -print0 | sort -z | xargs -0 cat | cat - "$build/node/built" | sha256sum)
if [ "$(cat "$project/built" 2>/dev/null)" != "$wanted" ]; then
    rm -rf "$project"
    mkdir -p "$project"
    cp -r "$here/." "$project"
    tsc -p "$project"
    echo "$wanted" >"$project/built"
fi
exec 9>&-
exec node "$project/dist/browser/server.js" "$@" --cache "$build/cache"
