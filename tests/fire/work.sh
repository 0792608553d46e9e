# Does what its payload says. Whatever a host must not forget afterwards goes into a journal that the host does not know.
set -eu
qm2=${QM2_BIN:?is set by qm2}
journal=${FIRE_JOURNAL:?is set by the test}
# One short write to a file opened for appending is never torn.
echo "start ${QM2_KEY:?is set by qm2}" >>"$journal"

guarded() {
    "$qm2" guard file:"$1" --token "$2" -- sh -c 'echo "guarded $QM2_KEY $1" >>"$2"; sleep 0.03' sh "$2" "$journal" || exit 75
}

case $QM2_PAYLOAD in
"sleep "*) sleep "${QM2_PAYLOAD#sleep }" ;;
guard)
    token=${QM2_TOKENS##*:}
    guarded shared.txt "${token%\}}"
    sleep 0.05
    ;;
claim)
    for file in a b; do
        token=$("$qm2" claim file:"$file" --wait 60) || exit 75
        echo "claimed $QM2_KEY $token" >>"$journal"
        guarded "$file" "$token"
        "$qm2" release file:"$file" || exit 75
    done
    ;;
ask)
    said=$("$qm2" escalate 'Shall it go on?') || exit 75
    echo "answered $QM2_KEY" >>"$journal"
    ;;
flaky)
    sleep 0.05
    [ "$QM2_ATTEMPT" -gt 1 ] || exit 75
    ;;
hold) until [ -e "$journal.go" ] || [ ! -e "$journal" ]; do sleep 0.05; done ;;
large) head -c 150000 /dev/zero | tr '\0' x ;;
esac
[ "$QM2_PAYLOAD" = large ] || echo "done $QM2_KEY"
