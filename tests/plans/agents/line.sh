# Writes one line for this start, then works for as many seconds as the payload says.
set -eu
# One short write to a file opened for appending is never torn.
echo "${QM2_STEP_ID:?} ${QM2_ATTEMPT:?} $$" >>"${QM2_LINES:-${QM2_DATA:?}/lines}"
sleep "${QM2_PAYLOAD:?the payload of this step is how long to work, in seconds}"
echo "done by $$"
