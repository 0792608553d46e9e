# Commit activity: how many, since when, by how many people, and the last twelve weeks with commits.
. agents/common.sh

if ! git rev-parse --verify --quiet HEAD >/dev/null; then
    echo "No commits yet." | finish
    exit 0
fi
{
    commits=$(git rev-list --count HEAD)
    people=$(git log --format=%ae | sort -u | wc -l | tr -d ' ')
    echo "Commits: $commits, authors: $people, last on $(git log -1 --format=%cs)."
    if [ "$(git rev-parse --is-shallow-repository)" = true ]; then
        echo "This is a shallow clone; older commits are not counted."
    fi
    echo
    echo "| week | commits |"
    echo "|---|---:|"
    git log --date=format:%G-W%V --format=%cd | sort | uniq -c | sort -k2 -r | head -n 12 |
        awk '{ print "| " $2 " | " $1 " |" }'
} | finish
