# Lines of text per folder of the first level; binary files are left out.
. agents/common.sh

# git grep tells text from binary; it exits with 1 where nothing matches, as in an empty checkout.
{ git -c core.quotePath=false grep -I --untracked -c '' || [ $? -eq 1 ]; } | awk '
    {
        lines = $0; sub(/^.*:/, "", lines)
        path = substr($0, 1, length($0) - length(lines) - 1)
        folder = index(path, "/") ? substr(path, 1, index(path, "/") - 1) : "(top level)"
        sum[folder] += lines; files[folder] += 1
    }
    END { for (folder in sum) print sum[folder] "\t" files[folder] "\t" folder }' | sort -rn | awk -F'\t' '
    { rows = rows "| " $3 " | " $2 " | " $1 " |\n"; files += $2; lines += $1 }
    END {
        print lines + 0 " lines in " files + 0 " text files.\n"
        print "| folder | files | lines |\n|---|---:|---:|"
        printf "%s", rows
    }' | finish
