#!/bin/sh
# Gets what the C++ host needs and builds it below target/hosts/cpp: wasmtime's library (from the Python wheel), the headers of the
# same version (from its crate), a JSON library and SQLite (from Debian, where root may), and the programs. Quiet, and without a
# network when all is there; builds anew when a source has changed.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
hosts=${QM2_HOSTS_DIR:-$here/../../../target/hosts}
mkdir -p "$hosts"
hosts=$(cd "$hosts" && pwd)
out=$hosts/cpp
version=50.0.1

wants=
[ -e /usr/include/nlohmann/json.hpp ] || wants="$wants nlohmann-json3-dev"
[ -e /usr/include/sqlite3.h ] || wants="$wants libsqlite3-dev"
command -v g++ >/dev/null || wants="$wants g++"
if [ -n "$wants" ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        apt-get update -qq
        # shellcheck disable=SC2086
        apt-get install -y -qq $wants >/dev/null
    else
        echo "please install:$wants" >&2
        exit 1
    fi
fi

mkdir -p "$out/include" "$out/lib" "$out/fetch/src"
if [ ! -e "$out/lib/libwasmtime.so" ]; then
    python3 -m venv "$out/fetch/venv"
    "$out/fetch/venv/bin/python" -m pip install -q --disable-pip-version-check "wasmtime==$version"
    cp "$(find "$out/fetch/venv" -name _libwasmtime.so)" "$out/lib/libwasmtime.so"
fi
if [ ! -e "$out/include/wasmtime/conf.h" ]; then
    # A manifest that only names the crate, so that cargo fetches its sources; nothing of it is compiled.
    : >"$out/fetch/src/lib.rs"
    cat >"$out/fetch/Cargo.toml" <<TOML
[package]
name = "headers"
version = "0.0.0"
edition = "2021"
[workspace]
[dependencies]
wasmtime-c-api-impl = { version = "=$version", default-features = false }
TOML
    (cd "$out/fetch" && cargo vendor -q vendor >/dev/null 2>&1 || cargo vendor vendor >&2)
    cp -r "$out/fetch/vendor/wasmtime-c-api-impl/include/." "$out/include/"
    rm -rf "$out/fetch/vendor"
    {
        echo '// The features of the library that this host uses.'
        echo '#define WASMTIME_FEATURE_COMPONENT_MODEL'
        echo '#define WASMTIME_FEATURE_CRANELIFT'
        echo '#define WASMTIME_FEATURE_COMPILER'
        echo '#define WASMTIME_FEATURE_GC' # the layout of a core value depends on it
    } >"$out/include/wasmtime/conf.h"
fi

exec make -s -j 2 -C "$here" OUT="$out"
