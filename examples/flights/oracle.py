#!/usr/bin/env python3
"""Says whether what came out of the flights job is right: every record, delta, document, dead letter and count.

It knows what job.yaml means and plays it over the records file in plain Python; it shares no code with Forebay and none
with prepare.py. It reads the outputs as `forebay log consume` prints them, the state as `forebay state scan -o json`
does. Everything in this job happens per record key, so it is told and compared key by key:

  O1  each expected output is there once, and nothing else is;
  O2  the outputs of one key are in the order of its inputs, and in one partition of their topic;
  O3  applying the deltas in order gives the state, and the state is the expected one;
  O4  a dead letter holds the original key and value, and says where it came from and which step refused it;
  O5  the books balance: in = processed + rejected + duplicate + filtered + throttled, each as expected.

The order of records of different keys is not defined, nor is that of records without a key (dead letters only).

Exit code: 0 for PASS, 1 for FAIL, 2 when a file cannot be read or the arguments make no sense.
"""

import argparse
import collections
import csv
import datetime
import functools
import gc
import json
import re
import sys

TABLE = "aircraft"
DEDUP_LAST = 64
DELAYED_OVER_MINUTES = 60
TOPICS = ("updates", "enriched", "delayed", "dead")

# How many differences are printed for each file.
SHOWN_MAX = 10


def main(argv=None):
    arguments = parse_arguments(argv)
    try:
        records = read_records(arguments.records)
        expected = {key: play(key, payloads) for key, payloads in records.items()}
        if arguments.summary:
            summarize(records, expected)
            return 0
        return 0 if print_report(compare_everything(arguments, records, expected)) else 1
    except (OSError, UnicodeDecodeError, Unreadable) as error:
        print(f"oracle: {error}", file=sys.stderr)
        return 2


def parse_arguments(argv):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", required=True, metavar="F", help="the records file that prepare.py wrote, or the input topic, read back")
    parser.add_argument("--summary", action="store_true", help="only print what must come out")
    parser.add_argument("--csv", metavar="F", help="flights.csv: compares the records file with it first")
    parser.add_argument("--input", metavar="F", help="the input topic, read back: then places are compared exactly")
    parser.add_argument("--input-topic", default="flights", metavar="NAME", help="its name (default: flights)")
    for topic in TOPICS:
        parser.add_argument(f"--{topic}", metavar="F", help=f"what came out in this topic: {topic}")
    parser.add_argument("--state", metavar="F", help="the state's rows")
    parser.add_argument("--books", metavar="F", help="the totals")
    arguments = parser.parse_args(argv)
    absent = [f"--{topic}" for topic in TOPICS if getattr(arguments, topic) is None]
    if absent and not arguments.summary:
        parser.error(f"needs {', '.join(absent)} too (or only --summary)")
    return arguments


class Unreadable(Exception):
    """A file that is no evidence for or against anything: it is not what the command line says it is."""


# What job.yaml means


class Expected:
    """What must come out for one record key, in order."""

    def __init__(self):
        self.updates = []
        self.enriched = []
        self.delayed = []
        self.dead = []  # Refusal
        self.state = None
        self.duplicates = 0
        self.may_hold_booleans = False


Refusal = collections.namedtuple("Refusal", "value step reason")


def play(key, payloads):
    """Plays the pipeline over all the payloads of one record key."""
    expected = Expected()
    expected.may_hold_booleans = any(map(may_hold_boolean, payloads))
    recent = collections.deque(maxlen=DEDUP_LAST)
    for payload in payloads:
        document, refusal = judge(payload)
        if refusal is not None:
            expected.dead.append(refusal)
            continue
        if key is None or key != document["tailnum"]:
            raise Unreadable(f"records file: {document['id']} has the key {key}, but says it is {document['tailnum']}")
        if document["id"] in recent:
            expected.duplicates += 1
            continue
        recent.append(document["id"])
        expected.state, delta = upsert(expected.state, key, document)
        enriched = dict(document, aircraft={field: expected.state[field] for field in ENRICHED_FIELDS})
        expected.updates.append(delta)
        expected.enriched.append(enriched)
        if document["dep_delay"] > DELAYED_OVER_MINUTES:
            expected.delayed.append(enriched)
    return expected


def judge(payload):
    """Returns the document and None, or None and why the record is refused."""
    if payload is None or isinstance(payload, Bytes):
        return None, Refusal(payload, "parse", "payload is no text")
    try:
        document = INPUT_DECODER.decode(payload)
    except (ValueError, RecursionError):
        return None, Refusal(payload, "parse", "payload is not JSON")
    if not isinstance(document, dict):
        return None, Refusal(payload, "parse", "payload is JSON, but not an object")
    for field, fits in VALIDATE:
        value = document.get(field)
        if value is None:
            return None, Refusal(payload, "validate", f"no {field}")
        if not fits(value):
            return None, Refusal(payload, "validate", f"bad {field}")
    return document, None


def refuse_constant(name):
    raise ValueError(f"{name} is not JSON")


class Fraction(float):
    """A JSON number with a point or an exponent: equal to its like only, so that 1.0 does not pass for 1."""

    __hash__ = float.__hash__

    def __eq__(self, other):
        return isinstance(other, Fraction) and float(self) == float(other)


def is_whole(value):
    return isinstance(value, int) and not isinstance(value, bool)


@functools.lru_cache(maxsize=100_000)  # far fewer hours than flights
def is_timestamp(value):
    if not re.fullmatch(TIMESTAMP, value):
        return False
    try:
        datetime.datetime.strptime(value[:19].upper().replace(" ", "T"), "%Y-%m-%dT%H:%M:%S")
    except ValueError:
        return False
    return True


TIMESTAMP = r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)"

# The validate block of job.yaml; each of these fields is required.
VALIDATE = (
    ("id", lambda value: isinstance(value, str)),
    ("tailnum", lambda value: isinstance(value, str) and re.fullmatch("[A-Z0-9]{3,8}", value) is not None),
    ("dep_delay", lambda value: is_whole(value) and -120 <= value <= 3000),
    ("dest", lambda value: isinstance(value, str) and 3 <= len(value) <= 4),
    ("distance", lambda value: is_whole(value) and value >= 1),
    ("time", lambda value: isinstance(value, str) and is_timestamp(value)),
)

ENRICHED_FIELDS = ("flights", "distance", "airports", "worst_delay")


def upsert(before, key, document):
    """Returns the aircraft after this flight, as a new document, and the delta that leads there."""
    old = before or {"airports": [], "flights": 0, "distance": 0, "worst_delay": document["dep_delay"]}
    new_airports = [] if document["dest"] in old["airports"] else [document["dest"]]
    after = {
        "carrier": document.get("carrier"),
        "last_airport": document["dest"],
        "last_seen": document["time"],
        "flights": old["flights"] + 1,
        "distance": old["distance"] + document["distance"],
        "worst_delay": max(old["worst_delay"], document["dep_delay"]),
        "airports": old["airports"] + new_airports if new_airports else old["airports"],  # shared, hence never changed
    }
    changed = {
        field: value
        for field, value in after.items()
        if field != "airports" and (before is None or not same(before[field], value))
    }
    delta = {"table": TABLE, "key": key, "set": changed}  # never empty: `flights` grows each time
    if new_airports:
        delta["addToSet"] = {"airports": new_airports}
    return after, delta


def apply_delta(document, delta):
    """Applies a delta that came out, as its reader would."""
    document.update(delta.get("set", {}))
    for field in delta.get("unset", []):
        document.pop(field, None)
    for field, members in delta.get("addToSet", {}).items():
        there = document.setdefault(field, [])
        there.extend(member for member in members if member not in there)
    for field, members in delta.get("removeFromSet", {}).items():
        document[field] = [member for member in document.get(field, []) if member not in members]


def books_of(records, expected):
    processed = sum(len(one.enriched) for one in expected.values())
    return {
        "in": sum(len(payloads) for payloads in records.values()),
        "processed": processed,
        "rejected": sum(len(one.dead) for one in expected.values()),
        "duplicate": sum(one.duplicates for one in expected.values()),
        "filtered": 0,
        "throttled": 0,
    }


# Reading


def read_records(path):
    """Returns the payloads of each record key, in the order of the file."""
    records = {}
    with open(path, encoding="utf-8", newline="\n") as file:
        for number, line in enumerate(file, start=1):
            try:
                record = json.loads(line)
                key, value = original(record["key"]), original(record["value"])
            except (ValueError, KeyError, TypeError) as error:
                raise Unreadable(f"read {path}: line {number} is not a record: {error!r}") from error
            records.setdefault(key, []).append(value)
    if not records:
        raise Unreadable(f"read {path}: no records")
    return records


Row = collections.namedtuple("Row", "partition offset value headers")


def read_topic(path, report):
    """Returns the rows of each key in the order of the topic; what is wrong with the file itself goes to the report."""
    rows = {}
    last_offset = {}
    with open(path, encoding="utf-8", newline="\n") as file:
        for number, line in enumerate(file, start=1):
            try:
                printed = json.loads(line)
                partition, offset = printed["partition"], printed["offset"]
                key, value = original(printed["key"]), original(printed["value"])
                headers = dict(printed.get("headers") or {}) or None  # none at all is the common case, and small
                out_of_place = offset <= last_offset.get(partition, -1)
            except (ValueError, KeyError, TypeError) as error:
                report.differs(f"line {number} is not a record as `forebay log consume` prints it: {error!r}")
                continue
            if out_of_place:
                report.differs(f"line {number}: partition {partition} shows offset {offset} after {last_offset[partition]}")
            last_offset[partition] = offset
            rows.setdefault(key, []).append(Row(partition, offset, value, headers))
    report.found = sum(map(len, rows.values()))
    return rows


class Bytes(str):
    """Bytes that are no UTF-8, in Base64."""

    __slots__ = ()


def original(printed):
    """Undoes how bytes are printed: a string when they are UTF-8, else {"base64": …}."""
    if isinstance(printed, dict):
        return Bytes(printed["base64"])
    if not isinstance(printed, (str, type(None))):
        raise ValueError(f"{printed!r} stands for no bytes")
    return printed


def parse_output(value):
    """Parses a value that came out; raises ValueError for what no strict reader would take."""
    if not isinstance(value, str):
        raise ValueError("absent")
    return DECODER.decode(value)


def object_without_repeats(pairs):
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a field occurs twice in one object")
    return document


# Made once: `json.loads` with arguments makes one each time.
DECODER = json.JSONDecoder(
    parse_constant=refuse_constant, parse_float=Fraction, object_pairs_hook=object_without_repeats
)
INPUT_DECODER = json.JSONDecoder(parse_constant=refuse_constant, parse_float=Fraction)


# Comparing


class Report:
    """What was compared for one file, and what was not as it must be."""

    def __init__(self, name):
        self.name = name
        self.expected = 0
        self.found = 0
        self.shown = []
        self.differences = 0

    def differs(self, message):
        self.differences += 1
        if len(self.shown) < SHOWN_MAX:
            self.shown.append(message)


def compare_everything(arguments, records, expected):
    reports = []

    def begin(name):
        reports.append(Report(name))
        return reports[-1]

    if arguments.csv:
        compare_csv(begin("records file"), arguments.records, arguments.csv)
    places = None
    if arguments.input:
        places = compare_input(begin("input"), arguments.input, records)
    replayed = {}
    replay_key = functools.partial(replay, replayed)
    compare_topic(begin("updates"), arguments.updates, "updates", expected, flights_in_delta, replay_key)
    compare_topic(begin("enriched"), arguments.enriched, "enriched", expected, flight_id)
    compare_topic(begin("delayed"), arguments.delayed, "delayed", expected, flight_id)
    compare_dead(begin("dead letters"), arguments.dead, expected, arguments.input_topic, places)
    states = {key: one.state for key, one in expected.items() if one.state is not None}
    compare_states(begin("deltas, applied"), replayed, states)
    if arguments.state:
        report = begin("state")
        compare_states(report, read_state(arguments.state, report), states)
    if arguments.books:
        compare_books(begin("books"), arguments.books, books_of(records, expected))
    return reports


def compare_topic(report, path, topic, expected, identity, visit=lambda key, found: None):
    """Compares a topic of documents; shows those of each key to `visit` on the way."""
    rows = read_topic(path, report)
    for key in sorted_keys(rows, expected):
        one = expected.get(key) or Expected()
        right = getattr(one, topic)
        report.expected += len(right)
        found = []
        booleans = one.may_hold_booleans
        for row in rows.get(key, []):
            try:
                found.append(parse_output(row.value))
                booleans = booleans or may_hold_boolean(row.value)
            except ValueError as error:
                report.differs(f"{place(key, row)} is not JSON: {error}: {row.value!r:.200}")
                found.append(None)
        # Python's equality is several times quicker; all that it lets pass wrongly here is a boolean for 1 or 0.
        if right != found or (booleans and not same(right, found)):
            explain(report, key, right, found, identity)
        one_partition(report, key, rows.get(key, []))
        visit(key, found)


def compare_input(report, path, records):
    """Compares the input topic with the records file; returns {(partition, offset): (key, value)}."""
    rows = read_topic(path, report)
    places = {}
    for key in sorted_keys(rows, records):
        right = records.get(key, [])
        report.expected += len(right)
        found = [row.value for row in rows.get(key, [])]
        compare_values(report, key, right, found)
        if key is not None:
            one_partition(report, key, rows.get(key, []))
        for row in rows.get(key, []):
            places[row.partition, row.offset] = (key, row.value)
    return places


def compare_dead(report, path, expected, input_topic, places):
    rows = read_topic(path, report)
    seen = set()
    for key in sorted_keys(rows, expected):
        right = expected[key].dead if key in expected else []
        report.expected += len(right)
        found = rows.get(key, [])
        compare_values(report, key, [refusal.value for refusal in right], [row.value for row in found])
        steps = {refusal.value: refusal.step for refusal in right}
        before = None
        for row in found:
            origin = compare_headers(report, key, row, steps.get(row.value), input_topic)
            if origin is None:
                continue
            if origin in seen:
                report.differs(f"{place(key, row)}: a second dead letter for the input's {origin}")
            seen.add(origin)
            if places is not None and places.get(origin) != (key, row.value):
                report.differs(f"{place(key, row)}: the input's {origin} is another record")
            if key is not None and before is not None and (origin[0] != before[0] or origin[1] <= before[1]):
                report.differs(f"{place(key, row)}: comes from the input's {origin}, the one before it from {before}")
            before = origin
        if key is not None:
            one_partition(report, key, found)


def compare_headers(report, key, row, step, input_topic):
    """Returns the (partition, offset) that the dead letter says it comes from, or None when it does not say so."""
    headers = row.headers or {}
    if step is not None and headers.get("forebay.step") != step:
        report.differs(f"{place(key, row)}: the step must be {step}, not {headers.get('forebay.step')!r}")
    if headers.get("forebay.topic") != input_topic:
        report.differs(f"{place(key, row)}: the topic must be {input_topic}, not {headers.get('forebay.topic')!r}")
    for name in ("forebay.error", "forebay.revision"):
        if not headers.get(name):
            report.differs(f"{place(key, row)}: has no header {name}")
    numbers = [str(headers.get(name, "")) for name in ("forebay.partition", "forebay.offset")]
    if not all(re.fullmatch("[0-9]+", number) for number in numbers):
        report.differs(f"{place(key, row)}: does not say which partition and offset it comes from: {numbers}")
        return None
    return int(numbers[0]), int(numbers[1])


def compare_values(report, key, right, found):
    """Compares plain values; those without a key are compared as a bag, since their order is not defined."""
    if key is None:
        right, found = (sorted(values, key=lambda value: value or "") for values in (right, found))
    if right != found:
        explain(report, key, right, found, identity=lambda value: value)


def explain(report, key, right, found, identity):
    """Says how two lists of one key differ, and always says something; they have been found to differ."""
    before = report.differences
    rights, founds = numbered(right, identity), numbered(found, identity)
    for name, value in rights.items():
        if name not in founds:
            report.differs(f"{key}: {brief(name[0])} is missing: {brief(value)}")
        elif not same(value, founds[name]):
            report.differs(f"{key}: {brief(name[0])}: {first_difference(value, founds[name])}")
    for name, value in founds.items():
        if name not in rights:
            again = (name[0], 1) in rights
            report.differs(f"{key}: {brief(name[0])} {'came out again' if again else 'must not come out'}: {brief(value)}")
    if report.differences == before:
        pairs = zip(rights, founds)
        wanted, came = next((wanted, came) for wanted, came in pairs if wanted != came)
        report.differs(f"{key}: {brief(came[0])} came out where {brief(wanted[0])} must come: not the input's order")


def numbered(values, identity):
    """Names each value by what it is about and the how-manieth about that it is."""
    counts = collections.Counter()
    names = {}
    for value in values:
        try:
            name = json.dumps(identity(value), sort_keys=True)
        except (KeyError, TypeError, AttributeError):
            name = json.dumps(value, sort_keys=True)
        counts[name] += 1
        names[name, counts[name]] = value
    return names


def flight_id(document):
    return document["id"]


def flights_in_delta(delta):
    """The count of flights is new in each delta of an aircraft, so it tells them apart."""
    return {"flights": delta["set"]["flights"]}


def one_partition(report, key, rows):
    partitions = sorted({row.partition for row in rows})
    if len(partitions) > 1:
        report.differs(f"{key}: in the partitions {partitions}; one key must be in one partition")


def same(left, right):
    """Equality of parsed JSON; unlike Python's, 1 is neither true nor 1.0. Objects have no order."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(value, right[name]) for name, value in left.items())
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    return left == right


def may_hold_boolean(payload):
    return payload is not None and ("true" in payload or "false" in payload)


def first_difference(right, found, path=""):
    if isinstance(right, dict) and isinstance(found, dict):
        for name in [*right, *(name for name in found if name not in right)]:
            inner = f"{path}.{name}"
            if name not in found:
                return f"{inner} is missing, must be {brief(right[name])}"
            if name not in right:
                return f"{inner} must not be there, is {brief(found[name])}"
            if not same(right[name], found[name]):
                return first_difference(right[name], found[name], inner)
    return f"{path or 'value'} must be {brief(right)}, is {brief(found)}"


def brief(value):
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 160 else text[:157] + "..."


def place(key, row):
    return f"{key}: partition {row.partition}, offset {row.offset}"


def sorted_keys(*maps):
    """All the keys, in one order for every run; the absent key first."""
    return sorted(set().union(*maps), key=lambda key: (key is not None, key or ""))


# State and books


def replay(documents, key, deltas):
    """Applies the deltas that came out for one record key."""
    for delta in deltas:
        try:
            if delta["table"] == TABLE:
                apply_delta(documents.setdefault(delta["key"], {}), delta)
        except (AttributeError, KeyError, TypeError):
            documents[key] = None  # no delta at all: shown as such under `updates`, and here as a wrong document
            break


def read_state(path, report):
    documents = {}
    with open(path, encoding="utf-8", newline="\n") as file:
        for number, line in enumerate(file, start=1):
            try:
                row = parse_output(line)
                table, key = row["table"], row["key"]
                if table != TABLE:
                    continue
                if key in documents:
                    report.differs(f"line {number}: {key} is there a second time")
                documents[key] = row["value"]
            except (ValueError, KeyError, TypeError) as error:
                report.differs(f"line {number} is not a row as `forebay state scan -o json` prints it: {error!r}")
    return documents


def compare_states(report, documents, states):
    report.expected, report.found = len(states), len(documents)
    for key in sorted_keys(documents, states):
        if key not in documents:
            report.differs(f"{key} is missing: {brief(states[key])}")
        elif key not in states:
            report.differs(f"{key} must not be there: {brief(documents[key])}")
        elif not same(states[key], documents[key]):
            report.differs(f"{key}: {first_difference(states[key], documents[key])}")


def compare_books(report, path, right):
    with open(path, encoding="utf-8") as file:
        try:
            found = parse_output(file.read())
        except ValueError as error:
            raise Unreadable(f"read {path}: {error}") from error
    if not isinstance(found, dict):
        raise Unreadable(f"read {path}: must be one JSON object")
    report.expected, report.found = len(right), sum(name in found for name in right)
    for name, count in right.items():
        if not same(count, found.get(name)):
            report.differs(f"{name}: must be {count}, is {found.get(name)}")


# The records file itself


def compare_csv(report, records_path, csv_path):
    """Checks the records that prepare.py made: the first rows of the CSV, all of them, in the order of their time."""
    rows = read_csv(csv_path)
    seen = set()
    latest = ""
    with open(records_path, encoding="utf-8", newline="\n") as file:
        for number, line in enumerate(file, start=1):
            record = json.loads(line)
            try:
                flight = INPUT_DECODER.decode(record["value"])
                right = rows[flight["id"]]
            except (ValueError, KeyError, TypeError):
                continue  # malformed on purpose; a flight that is lost this way is missed below
            if right != flight:
                report.differs(f"line {number}: {flight['id']}: {first_difference(right, flight)}")
            if record["key"] != right["tailnum"]:
                report.differs(f"line {number}: the key must be {right['tailnum']}, is {record['key']}")
            if flight["id"] not in seen and right["time"] < latest:
                report.differs(f"line {number}: {flight['id']} of {right['time']} comes after {latest}")
            latest = max(latest, right["time"])
            seen.add(flight["id"])
    report.expected = report.found = len(seen)
    for name in list(rows)[: len(seen)]:
        if name not in seen:
            report.differs(f"{name} is missing, though {len(seen)} flights are there")


def read_csv(path):
    def number(cell):
        return None if cell == "NA" else int(cell)

    texts = ("carrier", "origin", "dest", "tailnum")
    numbers = ("flight", "dep_delay", "arr_delay", "air_time", "distance")
    flights = {}
    with open(path, newline="", encoding="utf-8") as file:
        lines = csv.reader(file)
        columns = {name: column for column, name in enumerate(next(lines))}
        for cells in lines:
            name = "F" + str(len(flights) + 1).rjust(6, "0")
            flight = {"id": name, "time": cells[columns["time_hour"]]}
            for field in texts:
                cell = cells[columns[field]]
                flight[field] = None if cell == "NA" else cell
            for field in numbers:
                flight[field] = number(cells[columns[field]])
            flights[name] = flight
    return flights


# Printing


def print_report(reports):
    """Prints the table and what differs; returns whether all is right."""
    print(f"{'compared':<18}{'expected':>10}{'found':>10}{'differences':>13}")
    for report in reports:
        print(f"{report.name:<18}{report.expected:>10,}{report.found:>10,}{report.differences:>13,}")
    for report in reports:
        if report.differences:
            print(f"\n{report.name}: {report.differences:,} differences, the first {len(report.shown)}:")
            print("\n".join(f"  {message}" for message in report.shown))
    right = not any(report.differences for report in reports)
    print("\nPASS" if right else "\nFAIL")
    return right


def summarize(records, expected):
    books = books_of(records, expected)
    reasons = collections.Counter(f"{r.step}: {r.reason}" for one in expected.values() for r in one.dead)
    print("must come out of these records:")
    for name, count in books.items():
        print(f"  {name:<12}{count:>9,}")
        if name == "rejected":
            for reason, times in reasons.most_common():
                print(f"  {'':<12}{times:>9,}  {reason}")
    print(f"  {'delayed':<12}{sum(len(one.delayed) for one in expected.values()):>9,}  by more than {DELAYED_OVER_MINUTES} minutes")
    states = {key: one.state for key, one in expected.items() if one.state is not None}
    print(f"  {TABLE:<12}{len(states):>9,}")

    print("\nthe busiest aircraft:")
    for key, state in sorted(states.items(), key=lambda item: (-item[1]["flights"], item[0]))[:5]:
        airports = f"{len(state['airports'])} airports"
        print(f"  {key:<8}{state['carrier']:<4}{state['flights']:>5,} flights {state['distance']:>9,} miles  to {airports}")

    print("\nthe longest waits:")
    flights = (flight for one in expected.values() for flight in one.delayed)
    for flight in sorted(flights, key=lambda flight: (-flight["dep_delay"], flight["id"]))[:5]:
        what = f"{flight['carrier']} {flight['flight']} {flight['origin']}-{flight['dest']}"
        late = f"{flight['dep_delay'] // 60} h {flight['dep_delay'] % 60:02} min"
        print(f"  {flight['tailnum']:<8}{what:<18}{flight['time'][:10]}  {late:>12} late")


if __name__ == "__main__":
    gc.disable()  # millions of small documents and no cycles among them: looking for some takes a tenth of the time
    sys.exit(main())
