# Runs where languages.sh failed: files by the ending of their name.
. agents/common.sh

files | awk '
    { name = $0; sub(/^.*\//, "", name); ending = match(name, /.\.[^.]+$/) ? substr(name, RSTART + 1) : "(no ending)"; n[ending] += 1 }
    END { for (ending in n) print n[ending] "\t" ending }' | sort -k1,1rn -k2 | sed 15q | awk -F'\t' '
    NR == 1 { print "Most files end in " $2 ".\n"; print "| ending | files |\n|---|---:|" }
    { print "| " $2 " | " $1 " |" }
    END { if (NR == 0) print "No files." }' | finish
