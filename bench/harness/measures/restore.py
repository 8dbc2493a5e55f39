"""How long a contestant is away when it is killed and its disk is lost: from kill -9 to the first new commit, for a size of the state."""

import time

from .. import load
from ..processes import BenchError, await_true, folder_bytes
from ..run import Run, together
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
        state, snapshot = folder_bytes(run.folder), run.peer.snapshot_bytes(run.start)

        killed_us = int(time.time() * 1e6)
        process.kill()
        reader = run.begin("latency", "--topic", run.main_output, "--from-end", "--records", 1, "--patience-seconds", RESTORE_SECONDS)
        run.peer.wipe(run.start)
        generator = run.begin(*run.generate(NEW_RECORDS, *options, "--seed", 2))
        run.go()
        seen, more = reader.result(RESTORE_SECONDS + 30), generator.result()["counts"]
        if seen["first_seen_us"] is None:
            raise BenchError(f"nothing was committed within {RESTORE_SECONDS} s of the restart; its log: {run.process.log}")
        run.summarize(together(made, more), digest=False)
        return {
            "folder_bytes": state,
            "snapshot_bytes": snapshot,
            "seconds_to_first_commit": (seen["first_seen_us"] - killed_us) / 1e6,
        }
