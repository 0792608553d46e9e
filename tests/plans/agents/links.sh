# Links in Markdown files that point into the checkout, and those that point at nothing.
. agents/common.sh

list=$results/links.list
# Code blocks and inline code are left out; of each link its file, line and target is kept.
files -- '*.md' | while IFS= read -r file; do
    [ -f "$file" ] || continue
    awk -v file="$file" '
        /^ *(```|~~~)/ { code = !code; next }
        code { next }
        {
            gsub(/`[^`]*`/, "")
            while (match($0, /\]\([^()]*\)/)) {
                target = substr($0, RSTART + 2, RLENGTH - 3)
                $0 = substr($0, RSTART + RLENGTH)
                sub(/[ \t]+".*$/, "", target); sub(/#.*$/, "", target); gsub(/^<|>$/, "", target)
                if (target == "" || target ~ /^[A-Za-z][A-Za-z0-9+.-]*:/) continue
                print file "\t" FNR "\t" target
            }
        }' "$file"
done >"$list"
tab=$(printf '\t')
while IFS=$tab read -r file line target; do
    case $target in
        /*) path=.$target ;;
        *) path=$(dirname "$file")/$target ;;
    esac
    [ -e "$path" ] || echo "- $file:$line points at $target, which is not there"
done <"$list" >"$list.broken"
{
    count() { wc -l | tr -d ' '; }
    echo "$(count <"$list") local links in $(files -- '*.md' | count) Markdown files, $(count <"$list.broken") broken."
    echo
    cat "$list.broken"
} | finish
rm -f "$list" "$list.broken"
