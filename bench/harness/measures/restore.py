"""How long a contestant is away when it is killed and its disk is lost: from kill -9 to the first new commit, for a size of the state."""

import concurrent.futures
import os
import time

from .. import load
from ..processes import BenchError, await_true, folder_bytes, memory_bytes
from ..run import THREADS, Run, together
from ..servers import client
from .drain import PATIENCE_SECONDS

# From the last output to a snapshot of all that is in the state.
SETTLE_SECONDS = 120
# Records that wait when it comes back.
NEW_RECORDS = 20_000
RESTORE_SECONDS = 300


def cases(settings):
    return list(settings["sizes"])


def measure(bench, cell):
    settings = bench.settings_of(cell.workload, cell.measure)
    size = settings["sizes"][cell.case]
    with Run(bench, cell, linger_ms=20, settings={"checkpoint": settings["checkpoint"]}) as run:
        options = ["--ids", size["ids"], "--zipf", 0]
        made = load.call(run.servers, *run.generate(size["records"], *options))["counts"]
        process = run.go()
        watch = run.watch()
        watch.await_offsets(run.expected_first(made), PATIENCE_SECONDS, process)
        watch.stop()
        run.summarize(made, digest=False)
        await_true("a snapshot of everything", SETTLE_SECONDS, lambda: process.check() or run.peer.is_settled(run.start), every=0.5)
        # One more interval, so that what was only begun is complete.
        time.sleep(2 + run.start.commit_ms / 1000)
        state, objects = folder_bytes(run.folder), run.peer.snapshot_objects(run.start)

        killed_us = int(time.time() * 1e6)
        process.kill()
        reader = run.begin("latency", "--topic", run.main_output, "--from-end", "--records", 1, "--patience-seconds", RESTORE_SECONDS)
        run.peer.wipe(run.start)
        generator = run.begin(*run.generate(NEW_RECORDS, *options, "--seed", 2))
        process = run.go()
        seen, more = reader.result(RESTORE_SECONDS + 30), generator.result()["counts"]
        if seen["first_seen_us"] is None:
            raise BenchError(f"nothing was committed within {RESTORE_SECONDS} s of the restart; its log: {run.process.log}")
        run.summarize(together(made, more), digest=False)
        peak = memory_bytes(process.pid)
        process.kill()
        return {
            "folder_bytes": state,
            "snapshot_bytes": sum(objects.values()) or None,
            "seconds_to_download": bare_download(run.servers, run.folder / "download", objects) if objects else None,
            "seconds_to_first_commit": (seen["first_seen_us"] - killed_us) / 1e6,
            "memory_peak_bytes": peak,
        }


def bare_download(servers, folder, objects):
    """How long somebody takes who does nothing else: the same objects onto the same disk, as many at once as there are processors."""
    folder.mkdir()
    s3 = client(servers.s3_endpoint, servers.s3_keys)

    def fetch(numbered):
        number, (name, size) = numbered
        status, body = s3.request("GET", name)
        if status != 200 or len(body) != size:
            raise BenchError(f"GET {name}: HTTP {status} with {len(body)} of {size} bytes")
        with open(folder / str(number), "wb") as file:
            file.write(body)
            os.fsync(file.fileno())

    begun = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(fetch, enumerate(objects.items())):
            pass
    return time.monotonic() - begun
