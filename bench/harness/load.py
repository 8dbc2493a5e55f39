"""The program `forebay-bench-load`, called and read."""

import json
import subprocess
import threading
import time

from . import places
from .processes import BenchError, cpu_seconds, memory_bytes, read_bytes


def command(servers, *arguments):
    return [str(places.LOAD), "--kafka", servers.kafka, *map(str, arguments)]


def call(servers, *arguments):
    """Runs it to its end; returns what it printed, as JSON, or None."""
    run = subprocess.run(command(servers, *arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if run.returncode != 0:
        raise BenchError(f"{' '.join(command(servers, *arguments))}:\n{run.stderr.strip()[-2000:]}")
    return json.loads(run.stdout) if run.stdout.strip() else None


class Background:
    """The same, while something else goes on."""

    def __init__(self, servers, *arguments):
        self.command = command(servers, *arguments)
        self.child = subprocess.Popen(self.command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)

    def result(self, patience_seconds=600):
        try:
            out, errors = self.child.communicate(timeout=patience_seconds)
        except subprocess.TimeoutExpired:
            self.stop()
            raise BenchError(f"{' '.join(self.command)}: did not end within {patience_seconds} s") from None
        if self.child.returncode != 0:
            raise BenchError(f"{' '.join(self.command)}:\n{errors.strip()[-2000:]}")
        return json.loads(out) if out.strip() else None

    def stop(self):
        self.child.kill()
        self.child.communicate()


class Watch:
    """Progress of a topic, and at the same moments what the processes have cost. Each sample is a dict: `us`, `offsets`, and for each name
    in `pids` its processor seconds, for the first also its memory and what it has read from the disk."""

    def __init__(self, servers, topic, pids, committed=False, also=None):
        self.pids = pids
        self.samples = []
        self.also = also
        arguments = ["watch", "--topic", topic] + (["--committed"] if committed else [])
        self.child = subprocess.Popen(command(servers, *arguments), stdout=subprocess.PIPE, text=True, start_new_session=True)
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self):
        for line in self.child.stdout:
            sample = json.loads(line)
            for name, pid in list(self.pids.items()):
                sample[name] = cpu_seconds(pid)
            first = next(iter(self.pids.values()), 0)
            sample["memory"] = memory_bytes(first, "VmRSS")
            sample["read"] = read_bytes(first)
            self.samples.append(sample)
            if self.also:
                self.also()

    def await_offsets(self, offsets, patience_seconds, process):
        """Until the topic has so many; fails when there is no progress for that long."""
        best, moved = -1, time.monotonic()
        while True:
            now = self.samples[-1]["offsets"] if self.samples else 0
            if now >= offsets:
                return
            if now > best:
                best, moved = now, time.monotonic()
            process.check()
            if self.child.poll() is not None:
                raise BenchError("the watch on the topic ended by itself; what it said is above")
            if time.monotonic() - moved > patience_seconds:
                raise BenchError(f"stuck at {best} of {offsets} offsets for {patience_seconds} s; its log: {process.log}")
            time.sleep(0.05)

    def stop(self):
        self.child.kill()
        self.child.wait()
        self.thread.join()
        return self.samples
