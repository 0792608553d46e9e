# Adds one to a counter file 25 times: reads it, works for a random moment, writes it. With the payload `claimed` each time
# under an exclusive claim, and the write behind the guard; with `bare` as agents do without it.
set -eu
qm2=${QM2_BIN:-qm2}
resource=file:counter.txt
folder=${QM2_DATA:?is set by qm2}/contested
counter=$folder/${QM2_COORDINATION_ID:?is set by qm2}.txt
mkdir -p "$folder"

# In one move, so that nobody reads half a number: what is lost is lost by overwriting alone.
write='echo "$1" >"$2.$$" && mv "$2.$$" "$2"'

times=25
for moment in $(od -An -v -N $times -tu1 /dev/urandom); do
    [ "$QM2_PAYLOAD" = bare ] || token=$("$qm2" claim "$resource" --wait 600)
    count=$(cat "$counter" 2>/dev/null || echo 0)
    sleep "0.00$((moment % 10))"
    count=$((count + 1))
    if [ "$QM2_PAYLOAD" = bare ]; then
        sh -c "$write" sh "$count" "$counter"
    else
        "$qm2" guard "$resource" --token "$token" -- sh -c "$write" sh "$count" "$counter"
        "$qm2" release "$resource"
    fi
done
echo "added $times"
