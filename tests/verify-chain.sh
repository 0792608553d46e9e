#!/bin/sh
# Confirms the hash chain of a ledger without QM2: qm2 ledger export | sh verify-chain.sh
#
# Needs jq, sha256sum and awk. Prints "ok N records HEAD", or the first bad record and what is wrong with it (exit 1).
# Says nothing about whether the records make sense; `qm2 ledger verify` replays them.
set -eu
LC_ALL=C
export LC_ALL

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
trap 'exit 1' HUP INT TERM
cat >"$folder/ledger"
cd "$folder"

# The line without its hash, by jq. The ledger writes the byte 0x7f as \u007f and some versions of jq write it raw; it
# stands nowhere else in the ledger. At a line that is no JSON jq stops, and the lines after it are missing here.
delete=$(printf '\177')
jq -c 'del(.hash)' <ledger 2>/dev/null | sed "s/$delete/\\\\u007f/g" >by-jq || :
# The same by cutting text, as a second opinion: jq would forgive other spaces, escapes and orders, the hash does not.
sed 's/,"hash":"[0-9a-f]\{64\}"}$/}/' <ledger >by-text
jq -r '[.seq, .prev, .hash] | @tsv' <ledger >members 2>/dev/null || :

# sha256sum reads files: one for each line, without its newline; many of them to a process.
awk 'BEGIN { ORS = "" } { file = sprintf("line-%09d", NR); print $0 >file; close(file); print file "\n" }' <by-jq >files
xargs sha256sum <files | cut -c 1-64 >sums

awk -v records="$(awk 'END { print NR }' ledger)" '
    function bad(what) { print "bad record " seq ": " what; failed = 1; exit 1 }
    BEGIN {
        FS = "\t"
        prev = sprintf("%064d", 0)
        for (seq = 1; seq <= records; seq++) {
            getline text <"by-text"
            if ((getline json <"by-jq") != 1) bad("is no JSON object on a line of its own")
            if (json != text) bad("is not in canonical form")
            if ((getline <"members") != 1) bad("has no seq, prev and hash")
            if ($1 != seq) bad("has seq " $1)
            if ($2 != prev) bad("has prev " $2 ", but the hash before it is " prev)
            if ((getline sum <"sums") != 1 || sum != $3) bad("has hash " $3 ", but its content gives " sum)
            prev = $3
        }
        print "ok " records " records " prev
    }'
