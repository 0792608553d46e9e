# What the WIT files offer: items by kind and file.
. agents/common.sh

files -- '*.wit' | while IFS= read -r file; do
    [ -f "$file" ] || continue
    awk -v file="$file" '
        { sub(/\/\/.*$/, "") }
        /^[ \t]*interface / { interfaces += 1 }
        /^[ \t]*world / { worlds += 1 }
        /^[ \t]*(record|variant|enum|flags|type) / { types += 1 }
        /: *func\(/ { functions += 1 }
        END { print "| " file " | " worlds + 0 " | " interfaces + 0 " | " functions + 0 " | " types + 0 " |" }' "$file"
done | awk '
    { rows = rows $0 "\n"; functions += $8 }
    END {
        if (rows == "") { print "No WIT files."; exit }
        print functions " functions in " NR " WIT files.\n"
        print "| file | worlds | interfaces | functions | types |"
        print "|---|---:|---:|---:|---:|"
        printf "%s", rows
    }' | finish
