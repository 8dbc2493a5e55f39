"""Kafka and S3 for the bench: instances called `bench` of e2e/stack, the broker with the JVM flags and settings of one in use."""

import contextlib
import importlib.util
import os
import pathlib
import shutil
import subprocess

from . import places
from .processes import BenchError

INSTANCE = "bench"
BUCKET = "forebay-bench"
JVM = "-Xms1g -Xmx1g -XX:+UseG1GC -XX:MaxGCPauseMillis=20 -XX:InitiatingHeapOccupancyPercent=35"


class Servers:
    """What runs, and how to reach it."""

    def __init__(self):
        self.environment = {
            **os.environ,
            "FOREBAY_CACHE": str(places.CACHE),
            "FOREBAY_STACK_RUN": str(places.STACK_RUN),
            "FOREBAY_KAFKA_JVM": os.environ.get("FOREBAY_KAFKA_JVM", JVM),
        }

    def up(self):
        kafka = self._up("kafka", "BENCH_KAFKA_PORT", ["--properties", places.BENCH / "kafka.properties"])
        s3 = self._up("s3", "BENCH_S3_PORT", [])
        self.kafka = kafka["FOREBAY_TEST_KAFKA"]
        self.s3_endpoint = s3["FOREBAY_TEST_S3"]
        self.s3_keys = (s3["FOREBAY_TEST_S3_ACCESS_KEY"], s3["FOREBAY_TEST_S3_SECRET_KEY"])
        self.kafka_pid = self._pid("kafka")
        self.s3_pid = self._pid("s3")
        self._make_bucket()
        return self

    def down(self, forget=False):
        for kind in ("kafka", "s3"):
            self._stack(["remove" if forget else "down", kind, INSTANCE])

    @property
    def kafka_data(self):
        return places.STACK_RUN / "kafka" / INSTANCE / "data"

    @property
    def s3_data(self):
        return places.STACK_RUN / "s3" / INSTANCE / "data"

    @property
    def datasets(self):
        """Notes on the topics that the broker holds; they go away with its data."""
        folder = places.STACK_RUN / "kafka" / INSTANCE / "datasets"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _up(self, kind, port_variable, options):
        if self._stack(["status", kind, INSTANCE], check=False).returncode != 0:
            port = os.environ.get(port_variable)
            if port:
                options = [*options, "--port", port]
            printed = self._stack(["up", kind, INSTANCE, *options]).stdout
        else:
            printed = self._stack(["env", kind, INSTANCE]).stdout
        return dict(line.split("=", 1) for line in printed.splitlines() if "=" in line)

    def _stack(self, arguments, check=True):
        command = [str(places.STACK), *map(str, arguments)]
        run = subprocess.run(command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if check and run.returncode != 0:
            raise BenchError(f"{' '.join(command)}: {run.stderr.strip()}")
        return run

    def _pid(self, kind):
        return int((places.STACK_RUN / kind / INSTANCE / "pid").read_text().split()[0])

    def _make_bucket(self):
        make_bucket(self.s3_endpoint, self.s3_keys)


def make_bucket(endpoint, keys):
    """The bench's, if it is not there."""
    status, answer = client(endpoint, keys).request("PUT", f"/{BUCKET}")
    if status not in (200, 409):
        raise BenchError(f"PUT /{BUCKET}: HTTP {status}: {answer[:200]!r}")


def client(endpoint, keys):
    """`request(method, path)` gives status and body."""
    spec = importlib.util.spec_from_file_location("probe", places.STACK.parent / "s3" / "probe.py")
    probe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(probe)
    return probe.S3(endpoint, *keys)


class LogSizes:
    """Bytes that were appended to topics, as they lie on the broker's disk: batches as the producers compressed them. Segments that are
    deleted meanwhile still count, as far as `look` has seen them."""

    def __init__(self, data, prefix):
        self.data = pathlib.Path(data)
        self.prefix = prefix
        self.seen = {}

    def look(self):
        with contextlib.suppress(OSError):
            for partition in os.scandir(self.data):
                if not partition.name.startswith(self.prefix) or not partition.is_dir():
                    continue
                with contextlib.suppress(OSError):
                    for file in os.scandir(partition.path):
                        if file.name.endswith(".log"):
                            place = (partition.name, file.name)
                            self.seen[place] = max(self.seen.get(place, 0), file.stat().st_size)

    def by_topic(self):
        totals = {}
        for (partition, _), size in self.seen.items():
            topic = partition.rpartition("-")[0]
            totals[topic] = totals.get(topic, 0) + size
        return totals


def forget_runs():
    """What contestants left on disk."""
    shutil.rmtree(places.RUNS, ignore_errors=True)
