# Own packages by cargo, locked packages by the lock file; needs no network and no sources.
. agents/common.sh

[ -f Cargo.toml ] || { echo "No Cargo.toml at the top of the checkout." | finish; exit 0; }
command -v cargo >/dev/null || give_up "Cargo.toml is here but cargo is not installed"
metadata=$(cargo metadata --offline --no-deps --format-version 1 2>&1) || give_up "cargo metadata failed: $metadata"
# An id ends in #NAME@VERSION, or in /NAME#VERSION where folder and package have the same name.
own=$(printf '%s\n' "$metadata" | grep -o '"workspace_members":\[[^]]*\]' | grep -o '"path[^"]*"' | tr -d '"' |
    sed -e 's,^.*/\([^/]*\)#\([0-9][^#]*\)$,\1@\2,' -e 's,^.*#,,' | sort)
{
    if [ -f Cargo.lock ]; then
        awk '
            function flush() { if (name != "" && source != "") { n += 1; seen[name] += 1 } name = ""; source = "" }
            /^\[\[package\]\]/ { flush() }
            /^name = /    { gsub(/^name = "|"$/, ""); name = $0 }
            /^source = /  { source = $0 }
            END {
                flush()
                print n + 0 " packages of others are locked."
                for (name in seen) if (seen[name] > 1) twice = twice " " name " (" seen[name] ")"
                if (twice != "") print "\nLocked in more than one version:" twice "."
            }' Cargo.lock
    else
        echo "No Cargo.lock."
    fi
    echo
    echo "Own packages:"
    echo
    printf '%s\n' "$own" | sed 's/^/- /'
} | finish
