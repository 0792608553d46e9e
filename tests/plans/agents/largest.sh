# The largest files; the payload says how many.
. agents/common.sh

count=${QM2_PAYLOAD:-10}
case $count in *[!0-9]* | '') give_up "the payload of this step is the number of files, not '$count'" ;; esac
# A file that is tracked but gone is not counted; wc's own totals are dropped.
files -z | { xargs -0 wc -c 2>/dev/null || true; } | awk '
    $2 == "total" && NF == 2 { next }
    { bytes = $1; sub(/^ *[0-9]+ /, ""); print bytes "\t" $0 }' | sort -rn | sed "${count}q" | awk -F'\t' '
    NR == 1 { print $2 " is the largest with " $1 " bytes.\n"; print "| bytes | file |\n|---:|---|" }
    { print "| " $1 " | " $2 " |" }
    END { if (NR == 0) print "No files." }' | finish
