#!/usr/bin/env bash
# The flights example from nothing to a checked result: makes the records, runs the job on an embedded log, and lets the
# oracle say whether every record, delta, dead letter and count is right.
#
#   examples/flights/run.sh [--dir DIR] [--seed N] [--malformed N] [--limit N]
#
#   --dir DIR   where the run goes; must be empty or absent (default: a folder in the cache, instead of the last run)
#   --limit N   only the first N flights of the year, for a quick look; --seed, --malformed: see prepare.py
#
# FOREBAY_BIN names the forebay to run (default: the release build), FOREBAY_CACHE the cache, PYTHON the Python (3.9+).
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${FOREBAY_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/forebay}
forebay=${FOREBAY_BIN:-${CARGO_TARGET_DIR:-$cache/target}/release/forebay}
python=${PYTHON:-python3}
job=$here/job.yaml
topics=(updates enriched delayed flights.dead)

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
die() { printf 'run.sh: %s\n' "$*" >&2; exit 2; }
usage() { sed -n '2,/^set /{s/^# \{0,1\}//p;}' "${BASH_SOURCE[0]}"; }

dir=
prepare=()
while (($#)); do
    case $1 in
        --dir) (($# > 1)) || die "--dir needs a folder"; dir=$2; shift 2 ;;
        --seed | --malformed | --limit) (($# > 1)) || die "$1 needs a number"; prepare+=("$1" "$2"); shift 2 ;;
        -h | --help) usage; exit 0 ;;
        *) die "unknown argument $1; see --help" ;;
    esac
done

command -v "$forebay" >/dev/null || die "no forebay at $forebay; build it (cargo build --release) or set FOREBAY_BIN"
if [[ -z $dir ]]; then
    dir=$cache/flights/run
    # 700 MB.
    rm -rf "$dir"
    mkdir -p "$dir"
else
    mkdir -p "$dir"
    [[ -z $(ls -A "$dir") ]] || die "$dir is not empty; name another folder or remove it"
    dir=$(cd "$dir" && pwd)
fi

consume() { "$forebay" log consume --dir "$dir" --topic "$1" --from-beginning --until-end >"$dir/$1.jsonl"; }

say "1. The flights of 2013"
"$python" "$here/prepare.py" --output "$dir/records.jsonl" ${prepare[@]+"${prepare[@]}"}

say "2. Into the topic flights, 12 partitions"
"$forebay" log produce --dir "$dir" --topic flights --partitions 12 --input "$dir/records.jsonl"

say "3. The job, until the end of its input"
time "$forebay" run -f "$job" --dir "$dir" --until-end

say "4. What came out"
for topic in flights "${topics[@]}"; do consume "$topic"; done
"$forebay" state scan -f "$job" --dir "$dir" -o json >"$dir/state.jsonl"
"$forebay" books -f "$job" --dir "$dir" -o json >"$dir/books.json"
(cd "$dir" && wc -l flights.jsonl "${topics[@]/%/.jsonl}" state.jsonl)

say "5. Is it right?"
verdict=0
"$python" "$here/oracle.py" --records "$dir/records.jsonl" --csv "$cache/flights/flights.csv" --input "$dir/flights.jsonl" \
    --updates "$dir/updates.jsonl" --enriched "$dir/enriched.jsonl" --delayed "$dir/delayed.jsonl" \
    --dead "$dir/flights.dead.jsonl" --state "$dir/state.jsonl" --books "$dir/books.json" || verdict=$?

say "6. A few of the results"
"$python" - "$dir" <<'END' || true # for the eye only: the verdict has been given
import json, pathlib, sys

def rows(name):
    with open(pathlib.Path(sys.argv[1]) / name, encoding="utf-8") as file:
        yield from map(json.loads, file)

aircraft = [(row["key"], row["value"]) for row in rows("state.jsonl") if row["table"] == "aircraft"]
print("the aircraft that flew most, from the state:")
for key, it in sorted(aircraft, key=lambda pair: (-pair[1]["flights"], pair[0]))[:5]:
    print(f"  {key:<7} {it['carrier']}  {it['flights']:>4} flights  {it['distance']:>8,} miles  worst delay {it['worst_delay']:>4} min"
          f"  {len(it['airports']):>2} airports, last {it['last_airport']}")

for topic, what in [("updates", "the first delta"), ("delayed", "the first enriched flight that was delayed")]:
    row = next(rows(topic + ".jsonl"), None)
    if row:
        print(f"\n{what}:\n  {row['value']}")

print("\na dead letter of each step:")
seen = set()
for row in rows("flights.dead.jsonl"):
    headers = row["headers"]
    if headers["forebay.step"] not in seen:
        seen.add(headers["forebay.step"])
        where = f"{headers['forebay.topic']}/{headers['forebay.partition']} at {headers['forebay.offset']}"
        print(f"  {headers['forebay.step']}: {headers['forebay.error']}\n    from {where}: {row['value']!r:.120}")
END

say "The files are in $dir"
echo "remove them with: rm -r '$dir'"
exit "$verdict"
