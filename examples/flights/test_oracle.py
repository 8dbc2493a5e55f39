"""Shows that the oracle passes right outputs, written here by hand, and fails each way of being wrong.

    python3 examples/flights/test_oracle.py
"""

import contextlib
import copy
import io
import json
import pathlib
import re
import tempfile
import unittest

import oracle

HERE = pathlib.Path(__file__).parent


def flight(number, tailnum, dest, dep_delay, distance, time, carrier="UA"):
    return {
        "id": f"F{number:06d}",
        "carrier": carrier,
        "flight": 100 + number,
        "tailnum": tailnum,
        "origin": "EWR",
        "dest": dest,
        "dep_delay": dep_delay,
        "arr_delay": None,
        "air_time": 90,
        "distance": distance,
        "time": f"2013-01-01T{time}:00:00Z",
    }


# One aircraft with three flights, another with one; a flight without departure, one without aircraft, two that are no JSON.
FIRST = flight(1, "N14228", "IAH", 2, 1400, "10")
OTHER = flight(2, "N619AA", "MIA", -3, 1089, "10", carrier="AA")
SECOND = flight(3, "N14228", "ORD", 75, 719, "11")
THIRD = flight(4, "N14228", "IAH", 60, 1400, "11")
NOT_DEPARTED = flight(5, "N619AA", "MIA", None, 1089, "12", carrier="AA")
NO_AIRCRAFT = flight(6, None, "ATL", None, 746, "12")
CUT_OFF = '{"id":"F000001","carr'

RECORDS = [
    ("N14228", json.dumps(FIRST)),
    ("N619AA", json.dumps(OTHER)),
    ("N14228", json.dumps(SECOND)),
    ("N14228", json.dumps(FIRST)),  # a duplicate
    ("N14228", CUT_OFF),
    ("N14228", json.dumps(THIRD)),
    ("N619AA", json.dumps(NOT_DEPARTED)),
    (None, json.dumps(NO_AIRCRAFT)),
    ("N619AA", "[1]"),
    ("N619AA", json.dumps(NOT_DEPARTED)),  # refused again, not a duplicate
    (None, json.dumps(NO_AIRCRAFT)),
]


def aircraft(flights, distance, airports, worst_delay):
    return {"flights": flights, "distance": distance, "airports": airports, "worst_delay": worst_delay}


ENRICHED = [
    dict(FIRST, aircraft=aircraft(1, 1400, ["IAH"], 2)),
    dict(OTHER, aircraft=aircraft(1, 1089, ["MIA"], -3)),
    dict(SECOND, aircraft=aircraft(2, 2119, ["IAH", "ORD"], 75)),
    dict(THIRD, aircraft=aircraft(3, 3519, ["IAH", "ORD"], 75)),
]

UPDATES = [
    {
        "table": "aircraft",
        "key": "N14228",
        "set": {
            "carrier": "UA",
            "last_airport": "IAH",
            "last_seen": "2013-01-01T10:00:00Z",
            "flights": 1,
            "distance": 1400,
            "worst_delay": 2,
        },
        "addToSet": {"airports": ["IAH"]},
    },
    {
        "table": "aircraft",
        "key": "N619AA",
        "set": {
            "carrier": "AA",
            "last_airport": "MIA",
            "last_seen": "2013-01-01T10:00:00Z",
            "flights": 1,
            "distance": 1089,
            "worst_delay": -3,
        },
        "addToSet": {"airports": ["MIA"]},
    },
    {
        "table": "aircraft",
        "key": "N14228",
        "set": {
            "last_airport": "ORD",
            "last_seen": "2013-01-01T11:00:00Z",
            "flights": 2,
            "distance": 2119,
            "worst_delay": 75,
        },
        "addToSet": {"airports": ["ORD"]},
    },
    {"table": "aircraft", "key": "N14228", "set": {"last_airport": "IAH", "flights": 3, "distance": 3519}},
]

STATE = {
    "N14228": {
        "carrier": "UA",
        "last_airport": "IAH",
        "last_seen": "2013-01-01T11:00:00Z",
        "flights": 3,
        "distance": 3519,
        "worst_delay": 75,
        "airports": ["IAH", "ORD"],
    },
    "N619AA": {
        "carrier": "AA",
        "last_airport": "MIA",
        "last_seen": "2013-01-01T10:00:00Z",
        "flights": 1,
        "distance": 1089,
        "worst_delay": -3,
        "airports": ["MIA"],
    },
}

BOOKS = {"in": 11, "processed": 4, "rejected": 6, "duplicate": 1, "filtered": 0, "throttled": 0}

# The partition of each key in every topic here; records without a key lie in partition 2.
PARTITIONS = {"N14228": 0, "N619AA": 1, None: 2}


def topic(name, pairs):
    """The rows of a topic as `forebay log consume` prints them."""
    ends = {}
    rows = []
    for key, value in pairs:
        partition = PARTITIONS[key]
        offset = ends.get(partition, 0)
        ends[partition] = offset + 1
        row = {"topic": name, "partition": partition, "offset": offset, "key": key, "value": value, "timestamp": 0}
        rows.append(dict(row, headers={}))
    return rows


def dead_letters():
    rows = topic("flights.dead", [RECORDS[number] for number in (4, 6, 7, 8, 9, 10)])
    steps = ["parse", "validate", "validate", "parse", "validate", "validate"]
    offsets = [3, 1, 0, 2, 3, 1]  # of these records in their partitions of the input
    for row, step, offset in zip(rows, steps, offsets):
        row["headers"] = {
            "forebay.topic": "flights",
            "forebay.partition": str(row["partition"]),
            "forebay.offset": str(offset),
            "forebay.step": step,
            "forebay.error": "why",
            "forebay.revision": "3f2a",
        }
    return rows


class Outputs:
    """Right outputs, to be spoiled by a test before it asks the oracle."""

    def __init__(self):
        self.records = [{"key": key, "value": value, "timestamp": 0} for key, value in RECORDS]
        self.input = topic("flights", RECORDS)
        self.updates = topic("updates", [(delta["key"], json.dumps(delta)) for delta in UPDATES])
        self.enriched = topic("enriched", [(one["tailnum"], json.dumps(one)) for one in ENRICHED])
        self.delayed = topic("delayed", [("N14228", json.dumps(ENRICHED[2]))])
        self.dead = dead_letters()
        self.state = [{"table": "aircraft", "key": key, "value": value} for key, value in copy.deepcopy(STATE).items()]
        self.state.append({"table": "dedup", "key": "N14228", "value": ["F000001"]})
        self.books = dict(BOOKS)

    def ask(self, *without):
        """Returns the oracle's exit code and what it printed."""
        with tempfile.TemporaryDirectory() as folder:
            argv = []
            for name, content in vars(self).items():
                if name in without:
                    continue
                path = pathlib.Path(folder) / name
                rows = content if isinstance(content, list) else [content]
                path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
                argv += [f"--{name}", str(path)]
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
                code = oracle.main(argv)
        return code, printed.getvalue()


def edit(row, change):
    """Changes the JSON document in a row's value."""
    document = json.loads(row["value"])
    change(document)
    row["value"] = json.dumps(document)


def swap_values(rows, one, another):
    rows[one]["value"], rows[another]["value"] = rows[another]["value"], rows[one]["value"]


class OracleTest(unittest.TestCase):
    def passes(self, outputs, *without):
        code, printed = outputs.ask(*without)
        self.assertEqual(code, 0, printed)
        self.assertTrue(printed.endswith("\nPASS\n"), printed)

    def fails(self, outputs, pattern, *without):
        code, printed = outputs.ask(*without)
        self.assertEqual(code, 1, printed)
        self.assertTrue(printed.endswith("\nFAIL\n"), printed)
        self.assertRegex(printed, pattern)

    # Right outputs

    def test_right_outputs_pass(self):
        self.passes(Outputs())

    def test_state_books_and_input_may_be_left_out(self):
        self.passes(Outputs(), "state", "books", "input")

    def test_the_order_of_fields_and_of_different_keys_is_free(self):
        outputs = Outputs()
        outputs.enriched.sort(key=lambda row: -row["partition"])
        for row in outputs.enriched:
            row["value"] = json.dumps(json.loads(row["value"]), sort_keys=True, indent=1)
        outputs.state.reverse()
        self.passes(outputs)

    def test_offsets_may_have_gaps(self):
        outputs = Outputs()
        for row in outputs.updates:
            row["offset"] *= 3
        self.passes(outputs)

    def test_a_duplicate_outside_the_window_counts_as_new(self):
        payloads = [json.dumps(flight(number, "N14228", "IAH", 0, 1, "10")) for number in range(1, 67)]
        self.assertEqual(oracle.play("N14228", payloads[:64] + payloads[:1]).duplicates, 1)
        self.assertEqual(oracle.play("N14228", payloads[:65] + payloads[:1]).duplicates, 0)
        self.assertEqual(oracle.play("N14228", payloads[:65] + payloads[1:2]).duplicates, 1)

    def test_each_rule_of_the_validate_block_refuses(self):
        for field, bad in [
            ("id", 1),
            ("tailnum", "n14228"),
            ("tailnum", "N1"),
            ("dep_delay", 2.0),
            ("dep_delay", True),
            ("dep_delay", "2"),
            ("dep_delay", -121),
            ("dep_delay", 3001),
            ("dest", "NY"),
            ("distance", 0),
            ("time", "2013-02-30T10:00:00Z"),
            ("time", "yesterday"),
        ]:
            document, refusal = oracle.judge(json.dumps({**FIRST, field: bad}))
            self.assertIsNone(document)
            self.assertEqual((refusal.step, refusal.reason), ("validate", f"bad {field}"))
        for field, _ in oracle.VALIDATE:
            without = {name: value for name, value in FIRST.items() if name != field}
            for payload in (without, {**FIRST, field: None}):
                self.assertEqual(oracle.judge(json.dumps(payload))[1].reason, f"no {field}")

    def test_what_is_no_json_object_fails_at_parse(self):
        for payload in ["", " ", "x", "{", "{}{}", "{'a':1}", '{"a":1,}', '{"a":NaN}', "[]", "1", "null", '"x"']:
            self.assertEqual(oracle.judge(payload)[1].step, "parse", payload)

    def test_the_oracle_was_written_for_this_job(self):
        # When this fails, job.yaml has changed: change the oracle with it, then this copy.
        lines = (HERE / "job.yaml").read_text(encoding="utf-8").splitlines()
        lines = [re.sub(r"\s+#.*", "", line) for line in lines if not line.lstrip().startswith("#")]
        pipeline = "\n".join(line[4:] for line in lines[lines.index("  pipeline:") + 1 :])
        self.assertEqual(pipeline.strip(), PIPELINE.strip())

    # Records missing, repeated, invented, out of order

    def test_a_missing_record_fails(self):
        for name in ("updates", "enriched", "delayed", "dead", "input"):
            with self.subTest(name):
                outputs = Outputs()
                del getattr(outputs, name)[-1]
                self.fails(outputs, "is missing")

    def test_a_missing_key_fails(self):
        outputs = Outputs()
        outputs.enriched = [row for row in outputs.enriched if row["key"] != "N619AA"]
        self.fails(outputs, 'N619AA: "F000002" is missing')

    def test_a_repeated_record_fails(self):
        for name in ("updates", "enriched", "delayed", "dead", "input"):
            with self.subTest(name):
                outputs = Outputs()
                rows = getattr(outputs, name)
                rows.append(dict(rows[0], offset=99))
                self.fails(outputs, "came out again")

    def test_a_record_that_nobody_asked_for_fails(self):
        outputs = Outputs()
        outputs.delayed.append(dict(outputs.enriched[3], offset=99))  # 60 minutes are not more than 60
        self.fails(outputs, '"F000004" must not come out')

    def test_a_record_of_an_unknown_key_fails(self):
        outputs = Outputs()
        outputs.enriched.append(dict(outputs.enriched[0], key="N99999", offset=99))
        self.fails(outputs, 'N99999: "F000001" must not come out')

    def test_a_lost_key_fails(self):
        outputs = Outputs()
        outputs.enriched[0]["key"] = None
        self.fails(outputs, "must not come out")

    def test_a_swapped_order_within_a_key_fails(self):
        for name in ("updates", "enriched", "input"):
            with self.subTest(name):
                outputs = Outputs()
                swap_values(getattr(outputs, name), 0, 2)
                self.fails(outputs, "not the input's order")

    def test_swapped_dead_letters_of_a_key_fail(self):
        outputs = Outputs()
        one, another = outputs.dead[1], outputs.dead[3]
        for name in ("value", "headers"):
            one[name], another[name] = another[name], one[name]
        self.fails(outputs, "not the input's order")

    def test_dead_letters_without_a_key_have_no_order(self):
        outputs = Outputs()
        one, another = outputs.dead[2], outputs.dead[5]
        one["headers"], another["headers"] = another["headers"], one["headers"]
        self.passes(outputs)

    def test_offsets_that_go_back_fail(self):
        outputs = Outputs()
        outputs.enriched[0], outputs.enriched[2] = outputs.enriched[2], outputs.enriched[0]
        self.fails(outputs, "partition 0 shows offset 0 after 1")

    def test_a_key_in_two_partitions_fails(self):
        for name in ("updates", "enriched", "input"):
            with self.subTest(name):
                outputs = Outputs()
                getattr(outputs, name)[2].update(partition=3, offset=7)
                self.fails(outputs, r"N14228: in the partitions \[0, 3\]")

    # Wrong contents

    def test_a_wrong_field_fails(self):
        outputs = Outputs()
        edit(outputs.enriched[2], lambda document: document["aircraft"].update(flights=3))
        self.fails(outputs, r'N14228: "F000003": \.aircraft\.flights must be 2, is 3')

    def test_a_field_too_many_fails(self):
        outputs = Outputs()
        edit(outputs.enriched[2], lambda document: document.update(extra=None))
        self.fails(outputs, r"\.extra must not be there")

    def test_a_field_of_another_type_fails(self):
        for flights in (1.0, True, "1"):
            with self.subTest(flights):
                outputs = Outputs()
                edit(outputs.enriched[0], lambda document: document["aircraft"].update(flights=flights))
                self.fails(outputs, r"\.aircraft\.flights must be 1, is")

    def test_a_boolean_of_the_input_must_come_out_as_one(self):
        outputs = Outputs()
        for row in (outputs.records[1], outputs.input[1], outputs.enriched[1]):
            edit(row, lambda document: document.update(diverted=True, gate=1.5))
        self.passes(outputs)
        edit(outputs.enriched[1], lambda document: document.update(diverted=1))
        self.fails(outputs, r"\.diverted must be true, is 1")

    def test_a_field_that_occurs_twice_fails(self):
        outputs = Outputs()
        outputs.enriched[0]["value"] = outputs.enriched[0]["value"].replace("{", '{"flight": 101, ', 1)
        self.fails(outputs, "occurs twice")

    def test_airports_in_another_order_fail(self):
        outputs = Outputs()
        edit(outputs.enriched[3], lambda document: document["aircraft"]["airports"].reverse())
        self.fails(outputs, r"\.aircraft\.airports must be")

    def test_a_value_that_is_no_json_fails(self):
        for value in ("{", "", None, {"base64": "/w=="}):
            with self.subTest(value):
                outputs = Outputs()
                outputs.updates[0]["value"] = value
                self.fails(outputs, "is not JSON|must not come out")

    def test_a_delta_that_sets_what_has_not_changed_fails(self):
        outputs = Outputs()
        edit(outputs.updates[3], lambda delta: delta["set"].update(carrier="UA"))
        self.fails(outputs, r"\.set\.carrier must not be there")

    def test_a_delta_that_adds_what_is_there_fails(self):
        outputs = Outputs()
        edit(outputs.updates[3], lambda delta: delta.update(addToSet={"airports": ["IAH"]}))
        self.fails(outputs, r"\.addToSet must not be there")

    def test_an_empty_part_of_a_delta_fails(self):
        outputs = Outputs()
        edit(outputs.updates[3], lambda delta: delta.update(addToSet={}))
        self.fails(outputs, r"\.addToSet must not be there")

    def test_deltas_that_do_not_lead_to_the_state_fail_as_such(self):
        outputs = Outputs()
        edit(outputs.updates[2], lambda delta: delta.pop("addToSet"))
        self.fails(outputs, r'deltas, applied: 1 differences, the first 1:\n  N14228: \.airports must be \["IAH", "ORD"\]')

    # Dead letters

    def test_a_dead_letter_that_is_not_the_original_fails(self):
        outputs = Outputs()
        row = outputs.dead[1]
        row["value"] = json.dumps(json.loads(row["value"]), separators=(",", ":"))  # the same JSON, other bytes
        self.fails(outputs, "must not come out")

    def test_a_wrong_step_fails(self):
        outputs = Outputs()
        outputs.dead[0]["headers"]["forebay.step"] = "validate"
        self.fails(outputs, "the step must be parse, not 'validate'")

    def test_a_missing_header_fails(self):
        for name in ("topic", "partition", "offset", "step", "error", "revision"):
            with self.subTest(name):
                outputs = Outputs()
                del outputs.dead[2]["headers"][f"forebay.{name}"]
                self.fails(outputs, name)

    def test_a_wrong_place_fails(self):
        outputs = Outputs()
        outputs.dead[0]["headers"]["forebay.offset"] = "2"
        self.fails(outputs, r"the input's \(0, 2\) is another record")

    def test_a_place_that_is_named_twice_fails_without_the_input_too(self):
        outputs = Outputs()
        outputs.dead[5]["headers"]["forebay.offset"] = "0"
        self.fails(outputs, r"a second dead letter for the input's \(2, 0\)", "input")

    def test_places_of_a_key_that_go_back_fail_without_the_input_too(self):
        outputs = Outputs()
        outputs.dead[3]["headers"]["forebay.offset"] = "0"
        self.fails(outputs, r"comes from the input's \(1, 0\), the one before it from \(1, 1\)", "input")

    # State and books

    def test_a_wrong_state_fails(self):
        outputs = Outputs()
        outputs.state[0]["value"]["distance"] += 1
        self.fails(outputs, r"N14228: \.distance must be 3519, is 3520")

    def test_a_missing_entity_fails(self):
        outputs = Outputs()
        del outputs.state[1]
        self.fails(outputs, "state: 1 differences, the first 1:\n  N619AA is missing")

    def test_an_entity_too_many_fails(self):
        outputs = Outputs()
        outputs.state.append(dict(outputs.state[0], key="N99999"))
        self.fails(outputs, "N99999 must not be there")

    def test_an_entity_that_is_there_twice_fails(self):
        outputs = Outputs()
        outputs.state.append(outputs.state[0])
        self.fails(outputs, "N14228 is there a second time")

    def test_books_that_are_off_fail(self):
        for name in BOOKS:
            with self.subTest(name):
                outputs = Outputs()
                outputs.books[name] += 1
                self.fails(outputs, f"{name}: must be {BOOKS[name]}, is {BOOKS[name] + 1}")
                del outputs.books[name]
                self.fails(outputs, f"{name}: must be {BOOKS[name]}, is None")

    # The oracle's own manners

    def test_ten_differences_are_shown_and_all_are_counted(self):
        outputs = Outputs()
        outputs.enriched += [dict(outputs.enriched[0], key=f"N{number}", offset=number) for number in range(10, 40)]
        code, printed = outputs.ask()
        self.assertEqual(code, 1)
        self.assertIn("enriched: 30 differences, the first 10:", printed)
        self.assertEqual(printed.count("must not come out"), 10)

    def test_a_line_that_was_cut_off_fails(self):
        outputs = Outputs()
        outputs.enriched.append({"topic": "enriched"})
        self.fails(outputs, "line 5 is not a record")

    def test_a_file_that_is_not_there_is_neither_right_nor_wrong(self):
        with contextlib.redirect_stderr(io.StringIO()) as printed:
            self.assertEqual(oracle.main(["--summary", "--records", str(HERE / "not there")]), 2)
        self.assertIn("not there", printed.getvalue())

    def test_an_empty_records_file_is_no_evidence(self):
        outputs = Outputs()
        for name in vars(outputs):
            setattr(outputs, name, [])
        code, printed = outputs.ask("books")
        self.assertEqual(code, 2, printed)

    def test_a_record_whose_key_is_another_aircraft_is_refused(self):
        outputs = Outputs()
        outputs.records[0]["key"] = "N619AA"
        code, printed = outputs.ask()
        self.assertEqual(code, 2, printed)

    def test_the_summary_counts(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "records"
            path.write_text("".join(json.dumps(row) + "\n" for row in Outputs().records), encoding="utf-8")
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                self.assertEqual(oracle.main(["--summary", "--records", str(path)]), 0)
        for line in (r"in +11\n", r"processed +4\n", r"duplicate +1\n", r"delayed +1 ", r"2  validate: no tailnum"):
            self.assertRegex(printed.getvalue(), line)


class RecordsFileTest(unittest.TestCase):
    HEADER = "dep_delay,arr_delay,carrier,flight,tailnum,origin,dest,air_time,distance,time_hour\n"
    ROWS = "2,NA,UA,101,N14228,EWR,IAH,90,1400,2013-01-01T10:00:00Z\nNA,NA,UA,102,NA,EWR,ATL,90,746,2013-01-01T12:00:00Z\n"

    def check(self, flights, pattern):
        report = oracle.Report("records file")
        with tempfile.TemporaryDirectory() as folder:
            rows, records = pathlib.Path(folder) / "csv", pathlib.Path(folder) / "records"
            rows.write_text(self.HEADER + self.ROWS, encoding="utf-8")
            lines = [json.dumps({"key": one["tailnum"], "value": json.dumps(one)}) for one in flights]
            records.write_text("\n".join(lines), encoding="utf-8")
            oracle.compare_csv(report, records, rows)
        self.assertRegex("\n".join(report.shown) or "right", pattern)

    def test_the_records_file_is_compared_with_the_csv(self):
        first, last = FIRST, flight(2, None, "ATL", None, 746, "12")
        self.check([first, last, first], "^right$")
        self.check([last], "F000001 is missing")
        self.check([last, first], "F000001 of 2013-01-01T10:00:00Z comes after")
        self.check([dict(first, distance=1), last], r"\.distance must be 1400, is 1")
        self.check([dict(first, tailnum="N1")], "the key must be N14228, is N1")


PIPELINE = """
- parse:
    format: json
- validate:
    fields:
      id: {type: string, required: true}
      tailnum: {type: string, required: true, pattern: "^[A-Z0-9]{3,8}$"}
      dep_delay: {type: integer, required: true, min: -120, max: 3000}
      dest: {type: string, required: true, minLength: 3, maxLength: 4}
      distance: {type: integer, required: true, min: 1}
      time: {type: timestamp, required: true}
- dedup:
    by: [.id]
    last: 64
- upsert:
    table: aircraft
    set:
      carrier: .carrier
      last_airport: .dest
      last_seen: .time
    addToSet:
      airports: .dest
    increment:
      flights: 1
      distance: .distance
    max:
      worst_delay: .dep_delay
    emit:
      topic: updates
- enrich:
    table: aircraft
    into: aircraft
    fields: [flights, distance, airports, worst_delay]
- emit:
    topic: enriched
- route:
    - when: .dep_delay > 60
      emit:
        topic: delayed
"""


if __name__ == "__main__":
    unittest.main()
