# Two agents and one file. `slow` leaves a worker behind that its host cannot see, as one on another machine would be; it
# does not hear that the lease has ended, and writes late. `next` is granted the file after the lease, and writes too.
set -eu
qm2=${QM2_BIN:-qm2}
resource=file:notes.txt
folder=${QM2_DATA:?is set by qm2}/contested
notes=$folder/${QM2_COORDINATION_ID:?is set by qm2}.txt
mkdir -p "$folder"

# Appends its argument to the file if the guard allows it.
append() {
    "$qm2" guard "$resource" -- sh -c 'echo "$1" >>"$2"' sh "$1" "$notes"
}

case ${QM2_PAYLOAD:?the payload of this step is slow or next} in
slow)
    append slow
    # In a session and an environment of its own, and nobody's child.
    (env -i PATH="$PATH" QM2_BIN="$qm2" QM2_PAYLOAD=worker QM2_DATA="$QM2_DATA" QM2_COORDINATION_ID="$QM2_COORDINATION_ID" \
        QM2_SESSION="$QM2_SESSION" QM2_TOKENS="$QM2_TOKENS" setsid sh agents/outlived.sh </dev/null >/dev/null 2>&1 &)
    # Nothing renews the lease, so this is ended with it.
    exec sleep 100
    ;;
worker)
    # Past the lease: the other has written.
    tries=0
    until grep -q next "$notes"; do
        tries=$((tries + 1))
        [ $tries -lt 1000 ] || exit 1
        sleep 0.1
    done
    append late 2>"$notes.part" || echo "exit $?" >>"$notes.part"
    mv "$notes.part" "$notes.says"
    ;;
next)
    append next
    # Until the other has tried.
    until [ -e "$notes.says" ]; do sleep 0.1; done
    cat "$notes" "$notes.says"
    ;;
esac
