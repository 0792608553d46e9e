# Marks that people leave for later, with the first of them.
. agents/common.sh

marks=$results/todos.list
{ git -c core.quotePath=false grep -nIwE --untracked 'TODO|FIXME|XXX' || [ $? -eq 1 ]; } >"$marks"
{
    echo "$(wc -l <"$marks" | tr -d ' ') marks (TODO, FIXME, XXX)."
    if [ -s "$marks" ]; then
        echo
        # Four spaces make a code block, so nothing in the lines is taken for Markdown.
        head -n 20 "$marks" | cut -c 1-120 | sed 's/^/    /'
    fi
} | finish
rm -f "$marks"
