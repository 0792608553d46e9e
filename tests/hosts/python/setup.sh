#!/bin/sh
# Gets what the Python host needs: a virtual environment below target/hosts, with the pinned packages in it. Says nothing and needs
# no network when all is there. Installs nothing else anywhere, but for Debian's venv module where root may.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
venv=${QM2_HOSTS_DIR:-$here/../../../target/hosts}/python
python=${PYTHON:-python3}

if ! "$python" -c 'import ensurepip' 2>/dev/null && command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
    apt-get install -y -qq python3-venv >/dev/null
fi
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
for file in requirements.txt requirements-check.txt; do
    cmp -s "$here/$file" "$venv/$file" && continue
    "$venv/bin/python" -m pip install -q --disable-pip-version-check -r "$here/$file"
    cp "$here/$file" "$venv/$file"
done
