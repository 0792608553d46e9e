#!/bin/sh
# Gets what the browser host needs: Chromium as a Debian package, and what the Node host needs.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
if ! command -v chromium >/dev/null; then
    if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
        apt-get update -qq
        apt-get install -y -qq --no-install-recommends chromium >/dev/null
    else
        echo "setup.sh: install chromium first" >&2
        exit 1
    fi
fi
exec "$here/../node/setup.sh"
