# Licence files of the checkout, and the licences of the dependencies as far as their sources are on this machine.
. agents/common.sh

list=$results/licences.list
{
    found=$(find . -maxdepth 1 -type f \( -iname 'LICEN[CS]E*' -o -iname 'COPYING*' \) | sort | sed 's,^\./,,')
    echo "Licence files:" ${found:-none}.
    echo
    # The same packages that a build uses, so after one their sources are here; never asks the network.
    if [ -f Cargo.lock ] && cargo tree --offline --locked -e no-dev --prefix none -f '{l}	{p}' >"$list" 2>/dev/null; then
        echo "| licence | packages |"
        echo "|---|---:|"
        sed -e '/^$/d' -e 's/ (\*)$//' "$list" | sort -u | cut -f 1 | sed 's/^$/(none given)/' | sort | uniq -c |
            sort -k1,1rn -k2 | awk '{ n = $1; sub(/^ *[0-9]+ /, ""); print "| " $0 " | " n " |" }'
    else
        echo "Licences of dependencies are not listed: their sources are not all on this machine (cargo fetch brings them)."
    fi
} | finish
rm -f "$list"
