"""Processes: starting and ending them, and what they cost, as the kernel tells it. Linux only."""

import os
import pathlib
import signal
import subprocess
import time

TICKS = os.sysconf("SC_CLK_TCK")


class BenchError(Exception):
    """A measurement that could not be made; the message is for whoever runs the bench."""


def cpu_seconds(pid):
    """Processor time of a process and all its threads so far; 0 when it is gone."""
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0.0
    # The second field is the program's name in brackets, which may contain blanks.
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def memory_bytes(pid, field="VmHWM"):
    """Resident memory: the peak by default, `VmRSS` for now; 0 when the process is gone."""
    try:
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    for line in status.splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    return 0


def read_bytes(pid):
    """What a process has made the kernel fetch from the disk so far; 0 when it is gone."""
    try:
        lines = pathlib.Path(f"/proc/{pid}/io").read_text().splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes:"))


def folder_bytes(folder):
    """Size of all files below a folder, as far as they stay there while this looks."""
    total = 0
    for path, _, files in os.walk(folder):
        for name in files:
            try:
                total += os.lstat(os.path.join(path, name)).st_size
            except OSError:
                pass
    return total


def tail(path, lines=15):
    try:
        return "\n".join(pathlib.Path(path).read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return "(no log)"


class MemoryGroup:
    """A cgroup that holds a process together with the page cache that it fills to so many bytes; the kernel kills it when that cannot be. Needs root."""

    ROOT = pathlib.Path("/sys/fs/cgroup")

    def __init__(self, name, limit_bytes):
        controllers = self.ROOT / "cgroup.controllers"
        is_v2 = controllers.exists() and "memory" in controllers.read_text().split()
        parent, limit = (self.ROOT, "memory.max") if is_v2 else (self.ROOT / "memory", "memory.limit_in_bytes")
        self.folder = parent / name
        self.peak = self.folder / ("memory.peak" if is_v2 else "memory.max_usage_in_bytes")
        try:
            if is_v2:
                (parent / "cgroup.subtree_control").write_text("+memory")
            self.folder.mkdir(exist_ok=True)
            (self.folder / limit).write_text(str(limit_bytes))
        except OSError as error:
            raise BenchError(f"hold a process to {limit_bytes} bytes by a cgroup: {error}; this measure needs root and a writable {self.ROOT}") from None

    def wrapped(self, command):
        """The command, which enters the group and then becomes what it was."""
        return ["sh", "-c", 'echo $$ > "$0" && exec "$@"', self.folder / "cgroup.procs", *command]

    def peak_bytes(self):
        return int(self.peak.read_text())

    def remove(self):
        """Once its process is gone."""
        await_true(f"the end of {self.folder}", 10, self._is_removed)

    def _is_removed(self):
        try:
            self.folder.rmdir()
            return True
        except OSError:
            return not self.folder.exists()


class Process:
    """A process in a session of its own, its output in a file."""

    def __init__(self, command, log, environment=None):
        self.log = pathlib.Path(log)
        # With the bench it ends, however that does: an orphan would spoil all cells after it.
        with open(self.log, "ab") as out:
            self.child = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *[str(word) for word in command]],
                stdout=out,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                env={**os.environ, **(environment or {})},
            )
        self.pid = self.child.pid

    def check(self):
        code = self.child.poll()
        if code is not None:
            raise BenchError(f"it ended by itself with code {code}; the end of {self.log}:\n{tail(self.log)}")

    def kill(self):
        """At once, and its children with it; returns when it is gone."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.child.wait()


def await_true(what, patience_seconds, check, every=0.1):
    deadline = time.monotonic() + patience_seconds
    while not (value := check()):
        if time.monotonic() > deadline:
            raise BenchError(f"{what}: not within {patience_seconds} s")
        time.sleep(every)
    return value
