# Always fails on purpose: asks for a tool that nobody has, to show a fallback over a failure edge.
. agents/common.sh

tool=qm2-language-statistics
command -v "$tool" >/dev/null || give_up "$tool is not installed; the fallback counts by file name instead"
"$tool" . | finish
