"""A drain with far more state than memory: first each user comes once, which is not measured, then users come by the workload's skew. A cgroup holds
the contestant and its page cache to about a tenth of the state, so that what it looks up has to be read from the disk."""

from ..processes import folder_bytes
from ..run import Run, dataset
from . import drain as draining


def cases(settings):
    return [""]


def measure(bench, cell):
    settings = bench.settings_of(cell.workload, cell.measure)
    ids, records = settings["ids"], settings["ids"] + settings["records"]
    # No duplicates: to know which of them are found, the generator would have to remember what each user's last events were.
    topic, made = dataset(bench, cell.workload, f"cold-{ids}", records, "--ids", ids, "--each-first", "--no-duplicates")
    limit = max(settings["memory_mib"], bench.peers[cell.peer].memory_mib_min) << 20
    with Run(bench, cell, input=topic, linger_ms=20, settings={"checkpoint": settings["checkpoint"]}, memory_limit=limit) as run:
        result = draining.drain(bench, run, topic, made, skip=ids / records)
        state, peak = folder_bytes(run.start.state), run.start.memory_group.peak_bytes()
        return {**result, "ids": ids, "state_bytes": state, "memory_limit_bytes": limit, "state_to_limit": state / limit, "group_peak_bytes": peak}
