"""What snapshots cost: a drain, and a fixed load of a share of what it can keep up with, with them and without (two variants)."""

import statistics

from ..processes import folder_bytes
from ..run import THREADS, Run, dataset
from . import drain as draining
from . import latency


def cases(settings):
    return ["drain", "load"]


def measure(bench, cell):
    settings = bench.settings_of(cell.workload, cell.measure)
    with_snapshots = {"checkpoint": settings["checkpoint"]}
    stored_before = folder_bytes(bench.servers.s3_data)
    if cell.case == "drain":
        topic, made = dataset(bench, cell.workload, "drain", settings["records"])
        with Run(bench, cell, input=topic, linger_ms=20, settings=with_snapshots) as run:
            result = draining.drain(bench, run, topic, made)
    else:
        rate = int(settings["load_share"] * sustained_rate(bench, cell) or settings["rate_otherwise"])
        with Run(bench, cell, settings=with_snapshots) as run:
            result = latency.at_rate(bench, run, rate, settings["warm_seconds"], settings["seconds"])
    return {**result, "store_bytes": folder_bytes(bench.servers.s3_data) - stored_before}


def sustained_rate(bench, cell):
    """What this contestant can keep up with while generator and reader take their part of the same processors, from the medians of what these
    results hold of it; 0 when they hold no drains or no latency."""
    drained = median(bench, cell, "drain", "records_per_second")
    load_seconds = median(bench, cell, "latency", "load_cpu_seconds_per_million")
    return 1e6 / (1e6 / drained + load_seconds / THREADS) if drained and load_seconds else 0


def median(bench, cell, measure, figure):
    done = [other for other in bench.done(measure) if (other["workload"], other["peer"]) == (cell.workload, cell.peer)]
    return statistics.median(other["result"].get(figure, 0) for other in done) if done else 0
