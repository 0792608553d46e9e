# Joins the results of the other steps into one Markdown file and prints its path. The payload lists the steps.
. agents/common.sh

report=$root/target/repository-health.md
mkdir -p "$root/target"
{
    echo "# Repository health"
    echo
    echo "Of \`$(basename "$root")\`, written by step $QM2_STEP_ID of coordination $QM2_COORDINATION_ID."
    for step in $QM2_PAYLOAD; do
        echo
        echo "## $(echo "$step" | tr '-' ' ')"
        echo
        if [ -f "$results/$step.md" ]; then
            cat "$results/$step.md"
        else
            echo "Step $step gave no result; \`qm2 status $QM2_COORDINATION_ID\` says why."
        fi
    done
} >"$report.part"
mv "$report.part" "$report"
echo "$report"
