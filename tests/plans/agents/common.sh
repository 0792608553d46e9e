# Shared by the scripts of the repository report; not a step itself. Finds the checkout, and says where results go.
set -eu

# Ends the step for good: a retry would find the same.
give_up() {
    echo "$*" >&2
    exit 65
}

command -v git >/dev/null || give_up "git is not installed; this step reads a git checkout"
start=${QM2_WORKDIR:-$PWD}
root=$(git -C "$start" rev-parse --show-toplevel 2>&1) || give_up "$start is no git checkout, so there is nothing to look at: $root. Start qm2 inside a checkout."
cd "$root"

# Every result is a file that the report step reads: it keeps its place when a step is not run again after a restart.
results=${QM2_DATA:?is set by qm2}/health/${QM2_COORDINATION_ID:?is set by qm2}
mkdir -p "$results"
result=$results/${QM2_STEP_ID:?is set by qm2}.md

# Takes the section from stdin, puts it into its place in one move, and prints it as the result of the step.
finish() {
    cat >"$result.part"
    mv "$result.part" "$result"
    cat "$result"
}

# Files of the checkout: tracked ones and new ones that are not ignored.
files() {
    git -c core.quotePath=false ls-files --cached --others --exclude-standard "$@"
}
