"""Contestants. Each is a folder in `peers/` with a `peer.py` that holds a class `Peer`; nothing else knows their names."""

import dataclasses
import importlib.util
import json
import os
import pathlib
import shutil
import subprocess

from . import places
from .processes import BenchError, MemoryGroup, Process


@dataclasses.dataclass
class Start:
    """All that a contestant is told when it starts."""

    id: str  # of this run; every topic that it makes for itself must begin with it
    workload: str
    folder: pathlib.Path  # its own, new
    kafka: str
    input: str
    outputs: dict  # name in the workload -> topic
    copies: int  # what goes to the first output also goes to those named after it with -2, -3 and so on
    commit_ms: int
    linger_ms: int
    threads: int
    s3_endpoint: str
    s3_keys: tuple
    s3_url: str
    settings: dict  # the variant's, and the measure's
    memory_limit: int = 0  # bytes, for the process and its page cache; 0 for none
    memory_group: MemoryGroup = None  # which holds it to that

    @property
    def state(self):
        """What is lost with the disk."""
        return self.folder / "state"


class PeerBase:
    """What a contestant is, with what most of them have in common."""

    title = ""
    # By workload; a workload that is not named here is not run.
    workloads = []
    # Name of a variant -> settings. `commit_ms` must be there.
    variants = {"100ms": {"commit_ms": 100}}
    # It does not do the work: its output is its input.
    forwards_only = False
    # What it is told to keep to where a measure sets no limit of its own, in bytes; 0 where nothing is told.
    memory_bytes = 0
    # It does not start in less; where a measure gives less memory, it gets this.
    memory_mib_min = 0
    # By measure, the variants that take part; `full` in addition to `quick`. A measure for which a size has no settings is not run.
    runs = {"quick": {}, "full": {}}

    def __init__(self, folder):
        self.folder = folder
        self.name = folder.name

    def build(self):
        """Makes it ready to start; called once per run of the bench."""

    def version(self):
        return ""

    def command(self, start):
        """How to start it; called again, with `start.state` as it was left, to start it anew."""
        raise NotImplementedError

    def environment(self, start):
        return {}

    def journal_prefix(self, start):
        """Beginning of the topics that it logs its state changes in, or None."""
        return None

    def extra_topics(self, start):
        """Beginnings of further topics that it makes, and that do not begin with `start.id`."""
        return []

    def is_settled(self, start):
        """Whether its state is safe somewhere else than on its disk, so that this can be wiped."""
        return True

    def wipe(self, start):
        """As if the disk were lost."""
        shutil.rmtree(start.state, ignore_errors=True)
        start.state.mkdir()

    def snapshot_objects(self, start):
        """The objects in the bucket that it would restore from: name -> bytes."""
        return {}

    def start(self, start):
        start.state.mkdir(parents=True, exist_ok=True)
        command = self.command(start)
        if start.memory_group:
            command = start.memory_group.wrapped(command)
        return Process(command, start.folder / "log", self.environment(start))


class JavaPeer(PeerBase):
    """A Maven project whose `pom.xml` lies in the peer's folder; built into the cache."""

    main_class = {}  # by workload
    flags = ["-XX:+UseG1GC"]

    @property
    def target(self):
        return places.BUILT / self.name

    def build(self):
        log = places.BUILT / f"{self.name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        command = ["mvn", "--batch-mode", "-f", self.folder / "pom.xml", f"-Dbench.build={self.target}", "compile",
                   "dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={self.target / 'lib'}"]
        for _ in range(3):  # Maven keeps what it got, so a repetition after a network error goes on where the last one stopped
            with open(log, "w") as out:
                if subprocess.run(list(map(str, command)), stdout=out, stderr=subprocess.STDOUT).returncode == 0:
                    return
        raise BenchError(f"Maven could not build {self.name}; see {log}")

    def version(self):
        pom = (self.folder / "pom.xml").read_text()
        return pom.split("<peer.version>")[1].split("<")[0]

    def heap(self, start):
        """Where memory is limited, two fifths of it; the rest is for the virtual machine itself, for RocksDB and for the page cache."""
        mib = (start.memory_limit >> 20) * 2 // 5
        return [f"-Xms{mib}m", f"-Xmx{mib}m"] if mib else ["-Xms1g", "-Xmx1500m"]

    def properties(self, start):
        return {
            "brokers": start.kafka, "input": start.input, **start.outputs, "application": start.id, "commit.ms": start.commit_ms,
            "copies": start.copies, "linger.ms": start.linger_ms, "threads": start.threads, "state": start.state,
        }

    def command(self, start):
        properties = [f"-Dbench.{name}={value}" for name, value in self.properties(start).items()]
        java = f"{os.environ['JAVA_HOME']}/bin/java" if os.environ.get("JAVA_HOME") else "java"
        return [java, *self.heap(start), *self.flags, "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", *properties,
                "-cp", f"{self.target}/classes:{self.target}/lib/*", self.main_class[start.workload]]


def load_all():
    peers = {}
    for file in sorted((places.BENCH / "peers").glob("*/peer.py")):
        spec = importlib.util.spec_from_file_location(f"peer_{file.parent.name.replace('-', '_')}", file)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        peers[file.parent.name] = module.Peer(file.parent)
    return peers


def load_workloads():
    """Name -> what its `workload.json` says."""
    files = sorted((places.BENCH / "workloads").glob("*/workload.json"))
    return {file.parent.name: json.loads(file.read_text()) for file in files}
