#!/usr/bin/env python3
"""What Forebay costs and takes in a Kubernetes cluster. `make bench-operator`, `make e2e-many-jobs` and `make bench-moves` call this in the cluster's own network.

  cluster.py scale [--jobs N] [--workers N] [--results NAME]    one operator with so many jobs, nodes and pods played by kwok, workers by a stub
  cluster.py check [--jobs N] [--workers N]                     the same as a test: they all run, nothing is written while nothing happens, and memory is as it must be
  cluster.py moves [--users N] [--rate N] [--results NAME]      how late records become when shards change hands; nothing is played
  cluster.py report [--results NAME]                            the tables anew, from the cells that are there

Results go to bench/results/NAME, by default the date and `operator`: a file per run in `cells`, and the table.
"""

import argparse
import datetime
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from harness import machine, moves, places, scale  # noqa: E402
from harness.processes import BenchError  # noqa: E402


def keep(results, name, result):
    """A run as a file, with what it was made on."""
    kept = {"name": name, "at": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"), "load_average": machine.load_average(),
            "hardware": machine.hardware(), "commit": machine.commit(), "result": result}
    path = results / "cells" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(kept, indent=1) + "\n")
    return kept


def report(results):
    """`README.md` with a table for each cell."""
    cells = [json.loads(file.read_text()) for file in sorted((results / "cells").glob("*.json"))]
    if not cells:
        raise BenchError(f"there are no cells in {results}")
    hardware = cells[-1]["hardware"]
    head = (f"# Results {results.name}\n\nMade by `make bench-operator` and `make bench-moves`; what is measured, and how: [bench/README.md](../../README.md#the-operator). "
            f"{hardware['processors']} processors ({hardware['processor']}), {hardware['memory_gib']} GiB, {hardware['disk']}, Linux {hardware['kernel']}; "
            f"commit {cells[-1]['commit']}. API server, etcd, and all else run on the same processors.")
    many = sorted((cell for cell in cells if "jobs" in cell["result"]), key=lambda cell: cell["result"]["jobs"])
    moved = sorted((cell for cell in cells if "users" in cell["result"]), key=lambda cell: cell["result"]["users"])
    tables = [(cell, scale.table(cell)) for cell in many] + [(cell, moves.table(cell)) for cell in moved]
    # A note is written by hand into a cell of which something must be known.
    parts = [head, *("\n\n".join(filter(None, [text, cell.get("note")])) for cell, text in tables)]
    (results / "README.md").write_text("\n\n".join(parts) + "\n")
    print((results / "README.md").read_text())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["scale", "check", "moves", "report"])
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2, help="of each job")
    parser.add_argument("--users", type=int, default=3_000_000, help="entities in the state, of 330 bytes each")
    parser.add_argument("--rate", type=int, default=1000, help="records a second while shards move")
    parser.add_argument("--results", default=f"{datetime.date.today()}-operator", help="folder in bench/results")
    arguments = parser.parse_args()
    results = places.RESULTS / arguments.results
    try:
        if arguments.command == "check":
            return print(scale.check(arguments.jobs, arguments.workers))
        table = ""
        if arguments.command == "scale":
            table = scale.table(keep(results, f"scale-{arguments.jobs}-jobs-{arguments.workers}-workers", scale.measure(arguments.jobs, arguments.workers)))
        elif arguments.command == "moves":
            table = moves.table(keep(results, f"moves-{arguments.users}-users", moves.measure(arguments.users, arguments.rate)))
        report(results)
        if "**no**" in table:
            raise BenchError("something that must be reached is not: see **no** in the table")
    except BenchError as error:
        sys.exit(f"bench: {error}")


if __name__ == "__main__":
    main()
