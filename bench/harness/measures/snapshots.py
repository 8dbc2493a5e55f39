"""What snapshots cost: a drain, and a fixed load of a share of the drain's throughput, with them and without (two variants)."""

import statistics

from ..processes import folder_bytes
from ..run import Run, dataset
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
        rate = int(settings["load_share"] * drain_rate(bench, cell, settings["rate_otherwise"] / settings["load_share"]))
        with Run(bench, cell, settings=with_snapshots) as run:
            result = latency.at_rate(bench, run, rate, settings["warm_seconds"], settings["seconds"])
    return {**result, "store_bytes": folder_bytes(bench.servers.s3_data) - stored_before}


def drain_rate(bench, cell, otherwise):
    """The median of what this contestant has reached in the drains of these results."""
    done = [other for other in bench.done("drain") if (other["workload"], other["peer"]) == (cell.workload, cell.peer)]
    return statistics.median(other["result"]["records_per_second"] for other in done) if done else otherwise
