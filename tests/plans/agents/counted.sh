# Says what the counter file of contested.sh came to; the payload is what it should be.
set -eu
counter=$(cat "${QM2_DATA:?is set by qm2}/contested/${QM2_COORDINATION_ID:?is set by qm2}.txt")
echo "the file says $counter after ${QM2_PAYLOAD:?the payload is the number of increments} increments; $((QM2_PAYLOAD - counter)) were lost"
