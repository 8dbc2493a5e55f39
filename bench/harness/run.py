"""One run of one contestant: its topics and folder are made before and deleted afterwards; its process does not outlive it."""

import contextlib
import json
import os
import shutil
import uuid

from . import load, places
from .peers import Start
from .processes import BenchError, await_true
from .servers import BUCKET

# As many threads as there are processors; the broker shares them.
THREADS = os.cpu_count() or 1


class Run:
    """Use as `with Run(...) as run:`. `run.process` is the contestant, once `run.go()` was called."""

    def __init__(self, bench, cell, input=None, partitions=None, linger_ms=5, settings=None):
        self.bench, self.cell = bench, cell
        self.servers = bench.servers
        self.peer = bench.peers[cell.peer]
        self.workload = bench.workloads[cell.workload]
        self.id = f"bench-{uuid.uuid4().hex[:8]}"
        self.folder = places.RUNS / self.id
        self.makes_input = input is None
        self.partitions = partitions or self.workload["partitions"]
        variant = self.peer.variants[cell.variant]
        settings = {**(settings or {}), **variant}
        self.start = Start(
            id=self.id, workload=cell.workload, folder=self.folder, kafka=self.servers.kafka, input=input or f"{self.id}.events",
            outputs={name: f"{self.id}.{name}" for name in self.workload["outputs"]}, commit_ms=variant["commit_ms"], linger_ms=linger_ms,
            threads=THREADS, s3_endpoint=self.servers.s3_endpoint, s3_keys=self.servers.s3_keys, s3_url=f"s3://{BUCKET}/{self.id}",
            settings=settings,
        )
        self.process = None
        self.background = []

    def __enter__(self):
        self.folder.mkdir(parents=True)
        try:
            topics = [f"{topic}:{self.workload['partitions']}" for topic in self.start.outputs.values()]
            if self.makes_input:
                topics.append(f"{self.start.input}:{self.partitions}")
            load.call(self.servers, "create", *topics)
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
        """Topic -> how many records it must hold, from what the generator says that it made."""
        outputs = self.workload["outputs"]
        if self.peer.forwards_only:
            return {self.main_output: made["records"]}
        return {self.start.outputs[name]: made[verdict] for name, verdict in outputs.items()}

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
        return ["generate", "--workload", places.BENCH / "workloads" / self.cell.workload, "--topic", self.start.input,
                "--records", records, *arguments]

    def warm_up(self, seconds, rate):
        """Lets the contestant process so long at a rate; returns what was made."""
        return load.call(self.servers, *self.generate(seconds * rate, "--rate", rate, "--seed", 77, "--no-duplicates"))

    def summarize(self, made, digest=True):
        """What came out, committed; fails unless it is exactly what is expected."""
        arguments = [word for topic, count in self.expected(made).items() for word in ("--topic", f"{topic}={count}")]
        deltas = self.workload.get("deltas")
        if digest and deltas and not self.peer.forwards_only:
            arguments += ["--deltas", self.start.outputs[deltas]]
        summary = load.call(self.servers, "summarize", *arguments)
        self.process.check()
        if not summary["complete"]:
            raise BenchError(f"came out: {summary['counts']}, expected: {self.expected(made)}; its log: {self.process.log}")
        return summary


def dataset(bench, workload, name, records, **changes):
    """A topic that holds so many records of a workload, made once and read by all contestants. Returns its name and what was made."""
    topic = f"data.{workload}.{name}.{records}"
    note = bench.servers.datasets / f"{topic}.json"
    if not note.exists():
        bench.say(f"making {records:,} records of {workload}")
        load.call(bench.servers, "delete", topic)
        load.call(bench.servers, "create", f"{topic}:{bench.workloads[workload]['partitions']}")
        options = [word for option, value in changes.items() for word in (f"--{option}", value)]
        made = load.call(bench.servers, "generate", "--workload", places.BENCH / "workloads" / workload, "--topic", topic,
                         "--records", records, *options)
        note.write_text(json.dumps(made))
    return topic, json.loads(note.read_text())


def agree(bench, topic, summary):
    """Contestants that read the same must have made the same documents."""
    note = bench.servers.datasets / f"{topic}.digest"
    if not note.exists():
        note.write_text(summary["digest"])
    elif note.read_text() != summary["digest"]:
        raise BenchError(f"its documents differ from those of the contestants before it ({summary['documents']} were compared)")
