# The tools the report was made with. Its first attempt fails on purpose, to show a retry: 75 is a code that may pass.
. agents/common.sh

if [ "${QM2_ATTEMPT:?is set by qm2}" -eq 1 ]; then
    echo "the first attempt of this step always fails, to show a retry" >&2
    exit 75
fi
{
    echo "Made at attempt $QM2_ATTEMPT with:"
    echo
    for tool in git cargo rustc awk; do
        path=$(command -v "$tool") || { echo "- $tool: not installed"; continue; }
        # Not every awk knows --version.
        version=$("$tool" --version 2>/dev/null </dev/null | head -n 1) || version=
        echo "- $tool: ${version:-$path}"
    done
} | finish
