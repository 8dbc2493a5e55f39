"""One run of one contestant: its topics and folder are made before and deleted afterwards; its process does not outlive it."""

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import uuid

from . import load, places
from .peers import Start
from .processes import BenchError, MemoryGroup, await_true
from .servers import BUCKET

# As many threads as there are processors; the broker shares them.
THREADS = os.cpu_count() or 1


class Run:
    """Use as `with Run(...) as run:`. `run.process` is the contestant, once `run.go()` was called."""

    def __init__(self, bench, cell, input=None, partitions=None, linger_ms=5, settings=None, memory_limit=0, copies=1):
        self.bench, self.cell = bench, cell
        self.servers = bench.servers
        self.peer = bench.peers[cell.peer]
        self.workload = bench.workloads[cell.workload]
        self.id = f"bench-{uuid.uuid4().hex[:8]}"
        self.folder = places.RUNS / self.id
        self.makes_input = input is None
        self.partitions = partitions or self.workload["partitions"]
        # Of an input of the run's own nothing may come, however many partitions it has.
        self.output_partitions = self.workload["partitions"] if self.makes_input else self.partitions
        variant = self.peer.variants[cell.variant]
        settings = {**(settings or {}), **variant}
        # What goes to the main output goes to so many topics.
        self.outputs = dict(self.workload["outputs"])
        main = next(iter(self.outputs))
        self.outputs.update({f"{main}-{number}": self.outputs[main] for number in range(2, copies + 1)})
        self.start = Start(
            id=self.id, workload=cell.workload, folder=self.folder, kafka=self.servers.kafka, input=input or f"{self.id}.events",
            outputs={name: f"{self.id}.{name}" for name in self.outputs}, copies=copies, commit_ms=variant["commit_ms"], linger_ms=linger_ms,
            threads=THREADS, s3_endpoint=self.servers.s3_endpoint, s3_keys=self.servers.s3_keys, s3_url=f"s3://{BUCKET}/{self.id}",
            settings=settings, memory_limit=memory_limit,
        )
        self.process = None
        self.background = []

    def __enter__(self):
        self.folder.mkdir(parents=True)
        try:
            topics = [f"{topic}:{self.output_partitions}" for topic in self.start.outputs.values()]
            if self.makes_input:
                topics.append(f"{self.start.input}:{self.partitions}")
            load.call(self.servers, "create", *topics)
            if self.start.memory_limit:
                self.start.memory_group = MemoryGroup(self.id, self.start.memory_limit)
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise
        return self

    def __exit__(self, kind, error, trace):
        for child in self.background:
            with contextlib.suppress(Exception):
                child.stop()
        if self.process:
            self.process.kill()
        if self.start.memory_group:
            self.start.memory_group.remove()
        if error is None or not os.environ.get("BENCH_KEEP"):
            load.call(self.servers, "delete", self.id, *self.peer.extra_topics(self.start))
        if error is None:
            shutil.rmtree(self.folder, ignore_errors=True)
        return False

    @property
    def main_output(self):
        """The topic whose progress counts: the workload's first."""
        return next(iter(self.start.outputs.values()))

    def input_offsets(self):
        """How many records lie in the input, as the broker tells it."""
        watch = load.Watch(self.servers, self.start.input, {})
        try:
            return await_true("the end of the input", 30, lambda: watch.samples and watch.samples[-1]["offsets"])
        finally:
            watch.stop()

    def expected(self, made):
        """Topic -> how many records it must hold, from the generator's counts of what it made."""
        if self.peer.forwards_only:
            return {self.main_output: made["records"]}
        return {self.start.outputs[name]: sum(made[count] for count in counts) for name, counts in self.outputs.items()}

    def expected_first(self, made):
        """How many records the main output must hold."""
        return self.expected(made)[self.main_output]

    def go(self):
        self.process = self.peer.start(self.start)
        return self.process

    def watch(self, **arguments):
        pids = {"client": self.process.pid, "broker": self.servers.kafka_pid, "s3": self.servers.s3_pid}
        watch = load.Watch(self.servers, self.main_output, pids, **arguments)
        self.background.append(watch)
        return watch

    def begin(self, *arguments):
        child = load.Background(self.servers, *arguments)
        self.background.append(child)
        return child

    def generate(self, records, *arguments):
        return generate(self.cell.workload, self.workload, self.start.input, records, *arguments)

    def warm_up(self, seconds, rate):
        """Lets the contestant process so long at a rate; returns the counts of what was made."""
        return load.call(self.servers, *self.generate(seconds * rate, "--rate", rate, "--seed", 77, "--no-duplicates"))["counts"]

    def summarize(self, made, digest=True):
        """What came out, committed; fails unless it is exactly what is expected."""
        arguments = [word for topic, count in self.expected(made).items() for word in ("--topic", f"{topic}={count}")]
        if digest and not self.peer.forwards_only:
            deltas = self.workload.get("deltas")
            arguments += ["--deltas", self.start.outputs[deltas]] if deltas else ["--values"]
            arguments += ["--sample", self.workload.get("sample", 500)]
        summary = load.call(self.servers, "summarize", *arguments)
        self.process.check()
        if not summary["complete"]:
            raise BenchError(f"came out: {summary['counts']}, expected: {self.expected(made)}; its log: {self.process.log}")
        return summary


def generate(name, workload, topic, records, *arguments):
    """The command that makes so many records of a workload."""
    folder = places.BENCH / "workloads" / name
    lines = ["--lines", written_lines(folder, workload["records"]["program"])] if "program" in workload["records"] else []
    return ["generate", "--workload", folder, "--topic", topic, "--records", records, *lines, *arguments]


def written_lines(folder, program):
    """The file that a workload's own program writes, once for each state of the program."""
    program = folder / program
    file = places.HOME / "lines" / f"{folder.name}-{hashlib.sha256(program.read_bytes()).hexdigest()[:12]}.jsonl"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part")
        written = subprocess.run([sys.executable, program, part], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if written.returncode != 0:
            raise BenchError(f"{program}: {written.stdout.strip()[-2000:]}")
        part.rename(file)
    return file


def together(one, other):
    """The counts of two calls of the generator."""
    return {name: count + other[name] for name, count in one.items()}


def dataset(bench, workload, name, records, *options, partitions=None):
    """A topic that holds so many records of a workload, made once and read by all contestants. Returns its name and the counts of what was made."""
    topic = f"data.{workload}.{name}.{records}.{state_of(workload)}"
    note = bench.servers.datasets / f"{topic}.made"
    if not note.exists():
        bench.say(f"making {records:,} records of {workload}")
        digest(bench, topic).unlink(missing_ok=True)
        load.call(bench.servers, "delete", topic)
        load.call(bench.servers, "create", f"{topic}:{partitions or bench.workloads[workload]['partitions']}")
        made = load.call(bench.servers, *generate(workload, bench.workloads[workload], topic, records, *options))
        note.write_text(json.dumps(made["counts"]))
    return topic, json.loads(note.read_text())


def state_of(workload):
    """Another one once anything has changed that decides which records are made."""
    files = sorted(file for file in (places.BENCH / "workloads" / workload).iterdir() if file.is_file() and file.name != "job.yaml")
    all_bytes = b"".join(file.read_bytes() for file in [*files, *sorted((places.BENCH / "load" / "src").glob("*.rs"))])
    return hashlib.sha256(all_bytes).hexdigest()[:8]


def digest(bench, topic):
    return bench.servers.datasets / f"{topic}.digest"


def agree(bench, topic, summary):
    """Contestants that read the same must have made the same documents."""
    note = digest(bench, topic)
    if not note.exists():
        note.write_text(summary["digest"])
    elif note.read_text() != summary["digest"]:
        raise BenchError(f"its documents differ from those of the contestants before it ({summary['documents']} were compared)")
