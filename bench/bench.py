#!/usr/bin/env python3
"""Forebay's bench: the same work, broker and machine for Forebay and its peers. `make bench` and `make bench-quick` call this.

  bench.py run [--size quick|full|smoke] [--results NAME] [--only PATTERN]... [--skip PATTERN]... [--again]
  bench.py list [--size ...] [--only PATTERN]...      the cells that a run consists of, in order
  bench.py report [--results NAME]                    table and plots anew, from the cells that are there
  bench.py build                                      peers and the Python packages for plots
  bench.py up | down | forget                         the servers: start, stop, delete with their data

A cell is one run of one contestant, WORKLOAD.MEASURE[-CASE].PEER-VARIANT.NUMBER, such as action.drain.flink-1s.2. A cell that is there already is not
run again, so an interrupted run goes on where it was; --again runs it anew. PATTERN is a shell pattern for the name of a cell, `*` allowed.
"""

import argparse
import dataclasses
import datetime
import fnmatch
import json
import pathlib
import signal
import subprocess
import sys
import time
import traceback

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from harness import machine, measures, peers, places, report  # noqa: E402
from harness.processes import BenchError  # noqa: E402
from harness.servers import Servers, forget_runs  # noqa: E402


@dataclasses.dataclass(frozen=True)
class Cell:
    workload: str
    measure: str
    case: str
    peer: str
    variant: str
    number: int

    @property
    def name(self):
        what = self.measure + (f"-{self.case}" if self.case else "")
        return f"{self.workload}.{what}.{self.peer}-{self.variant}.{self.number}"


class Bench:
    """Peers, workloads, settings, and the results so far."""

    def __init__(self, size, results):
        self.size = size
        self.settings = json.loads((places.BENCH / "settings.json").read_text())[size]
        self.peers = peers.load_all()
        self.workloads = peers.load_workloads()
        self.results = places.RESULTS / results
        self.servers = None

    def cells(self):
        """All of them, in order: contestants take turns, so that what changes on the machine meets all of them alike."""
        for workload, described in self.workloads.items():
            for measure in described["measures"]:
                if measure not in self.settings:
                    continue
                settings = self.settings_of(workload, measure)
                for number in range(1, settings["repeat"] + 1):
                    for case in measures.ALL[measure].cases(settings):
                        those = list(self.contestants(workload, measure))
                        # Each has another one before it every time.
                        first = (number - 1) % max(1, len(those))
                        for peer, variant in those[first:] + those[:first]:
                            yield Cell(workload, measure, case, peer, variant, number)

    def settings_of(self, workload, measure):
        """Those of the measure, or of the measure with this workload."""
        return {**self.settings[measure], **self.settings.get(f"{workload}.{measure}", {})}

    def contestants(self, workload, measure):
        for name, peer in self.peers.items():
            if workload in peer.workloads:
                more = peer.runs["full"].get(measure, []) if self.size == "full" else []
                for variant in peer.runs["quick"].get(measure, []) + more:
                    yield name, variant

    def path(self, cell):
        return self.results / "cells" / f"{cell.name}.json"

    def done(self, measure=None):
        """What is kept of the cells that were run."""
        cells = [json.loads(file.read_text()) for file in sorted((self.results / "cells").glob("*.json"))]
        return [cell for cell in cells if measure in (None, cell["measure"])]

    def run_cell(self, cell):
        begun = time.time()
        result = measures.ALL[cell.measure].measure(self, cell)
        kept = {**dataclasses.asdict(cell), "name": cell.name, "size": self.size, "at": stamp(begun), "commit": machine.commit(), "profile": places.PROFILE, "seconds": round(time.time() - begun, 1),
                "load_average": machine.load_average(), "result": result}
        path = self.path(cell)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".part").write_text(json.dumps(kept, indent=1) + "\n")
        path.with_suffix(".part").rename(path)
        return kept

    def say(self, text):
        print(f"{datetime.datetime.now():%H:%M:%S}  {text}", flush=True)


def stamp(seconds):
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).isoformat(timespec="seconds")


def selected(bench, arguments):
    def is_meant(cell):
        wanted = not arguments.only or any(fnmatch.fnmatch(cell.name, pattern) for pattern in arguments.only)
        return wanted and not any(fnmatch.fnmatch(cell.name, pattern) for pattern in arguments.skip)

    return [cell for cell in bench.cells() if is_meant(cell)]


def build(bench, names):
    if not (places.FOREBAY.exists() and places.LOAD.exists()):
        raise BenchError(f"{places.FOREBAY} or {places.LOAD} is missing; `make {'dist' if places.PROFILE == 'dist' else 'build'}` builds them")
    for name in sorted(names):
        bench.say(f"building {name}")
        bench.peers[name].build()
    report.install_plotting()


def run(bench, arguments):
    cells = selected(bench, arguments)
    todo = [cell for cell in cells if arguments.again or not bench.path(cell).exists()]
    bench.say(f"{len(todo)} cells to run, {len(cells) - len(todo)} are there; results in {bench.results.relative_to(places.ROOT)}")
    build(bench, {cell.peer for cell in todo})
    bench.results.mkdir(parents=True, exist_ok=True)
    failed = []
    forget_runs()
    bench.servers = Servers().up()
    try:
        machine.write(bench)
        if todo:
            warm_up(bench)
        for number, cell in enumerate(todo, 1):
            try:
                kept = bench.run_cell(cell)
                bench.say(f"{number}/{len(todo)}  {cell.name}  {kept['seconds']:.0f} s  {report.headline(kept)}")
            except BenchError as error:
                failed.append(cell.name)
                bench.say(f"{number}/{len(todo)}  {cell.name}  FAILED: {error}")
            except Exception:  # a bug of the bench must not cost the other cells
                failed.append(cell.name)
                bench.say(f"{number}/{len(todo)}  {cell.name}  FAILED:\n{traceback.format_exc()}")
    finally:
        bench.servers.down()
    report.write(bench)
    print((bench.results / "README.md").read_text())
    if failed:
        raise BenchError(f"{len(failed)} cells failed, run the same again to repeat them: {', '.join(failed)}")


def warm_up(bench):
    """A drain that does not count: the broker's JVM compiles what is used much, and whoever came first would pay for it."""
    first = next(cell for cell in bench.cells() if cell.measure == "drain")
    bench.say("the broker warms up")
    build(bench, {first.peer})
    measures.ALL[first.measure].measure(bench, first)


def begun(size):
    """The folder of the last run of this size where cells are missing that this commit has begun; otherwise a new one, by the date."""
    for file in sorted(places.RESULTS.glob("*/machine.json"), reverse=True):
        described = json.loads(file.read_text())
        there = Bench(size, file.parent.name)
        if (described["size"], described["versions"]["commit"]) == (size, machine.commit()) and not all(there.path(cell).exists() for cell in there.cells()):
            return file.parent.name
    return f"{datetime.date.today()}" + ("" if size == "full" else f"-{size}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["run", "list", "report", "build", "up", "down", "forget"])
    parser.add_argument("--size", choices=["quick", "full", "smoke"], default="quick")
    parser.add_argument("--results", help="folder in bench/results; by default the one that this commit has begun and not ended, or the date, with the size unless that is `full`")
    parser.add_argument("--only", action="append", default=[], metavar="PATTERN")
    parser.add_argument("--skip", action="append", default=[], metavar="PATTERN")
    parser.add_argument("--again", action="store_true")
    arguments = parser.parse_args()
    bench = Bench(arguments.size, arguments.results or begun(arguments.size))
    # As Ctrl-C: the contestant in hand and the servers are ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench: ended by SIGTERM"))
    try:
        if arguments.command == "run":
            run(bench, arguments)
        elif arguments.command == "list":
            print("\n".join(cell.name for cell in selected(bench, arguments)))
        elif arguments.command == "report":
            report.write(bench)
            print((bench.results / "README.md").read_text())
        elif arguments.command == "build":
            build(bench, bench.peers)
        elif arguments.command == "up":
            print(Servers().up().kafka)
        else:
            Servers().down(forget=arguments.command == "forget")
    except (BenchError, subprocess.CalledProcessError) as error:
        sys.exit(f"bench: {error}")


if __name__ == "__main__":
    main()
