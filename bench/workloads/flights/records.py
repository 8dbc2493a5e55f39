#!/usr/bin/env python3
"""Writes the records of the flights example, one a line, with what must come of each by the example's own oracle: `records.py FILE`.

They come again round by round, as long as the bench asks for more, so each flight's id bears the number of the round (`<id>`): in the memory of the 64
last flights of an aircraft it is another flight. Each valid one also gets the time at which it is due, which the probe of latency looks for.
"""

import collections
import json
import pathlib
import sys

EXAMPLE = pathlib.Path(__file__).resolve().parents[3] / "examples" / "flights"
sys.path.insert(0, str(EXAMPLE))

import oracle  # noqa: E402
import prepare  # noqa: E402

# As the example has them by default.
SEED = 1
MALFORMED = 40


def main(target):
    rows = prepare.read_rows(prepare.fetch_csv(prepare.cache_folder()), None)
    recent = collections.defaultdict(lambda: collections.deque(maxlen=oracle.DEDUP_LAST))
    with open(target, "w", encoding="utf-8") as file:
        for record in prepare.mix(prepare.in_order_of_schedule(rows), SEED, MALFORMED):
            key, value = record["key"], record["value"]
            counts = judged(key, value, recent)
            if "rejected" not in counts:
                value = with_slots(value)
            file.write(json.dumps({"key": key, "value": value, "counts": counts}, ensure_ascii=False) + "\n")


def judged(key, value, recent):
    document, refusal = oracle.judge(value)
    if refusal is not None:
        return ["rejected"]
    if document["id"] in recent[key]:
        return ["duplicate"]
    recent[key].append(document["id"])
    return ["processed", "delayed"] if document["dep_delay"] > oracle.DELAYED_OVER_MINUTES else ["processed"]


def with_slots(value):
    begin = '{"id":"'
    assert value.startswith(begin) and "<" not in value, value
    return f'{begin}R<id>-{value[len(begin):-1]},"sent_us":<now_us>}}'


if __name__ == "__main__":
    main(sys.argv[1])
