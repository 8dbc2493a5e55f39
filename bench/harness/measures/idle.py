"""What a job costs that has nothing to do, by its number of shards."""

import time

from ..processes import await_true, cpu_seconds, memory_bytes
from ..run import Run
from .latency import READY_SECONDS

# After so long without a transaction claims, first epochs and first checkpoints are over.
CALM_SECONDS = 8

# The first checkpoints are spread over their interval.
CALM_WITHIN_SECONDS = 120


def cases(settings):
    return [f"{shards}-shards" for shards in settings["shards"]]


def measure(bench, cell):
    settings = bench.settings_of(cell.workload, cell.measure)
    shards = int(cell.case.split("-")[0])
    with Run(bench, cell, partitions=settings["partitions"], settings={"shards": shards}) as run:
        process = run.go()

        def running():
            process.check()
            return sum(run.peer.metrics(run.start).get("forebay_shard_running", [])) == shards

        await_true(f"{shards} running shards", READY_SECONDS, running)
        await_calm(run, process)
        before, cpu, broker = run.peer.metrics(run.start), cpu_seconds(process.pid), cpu_seconds(run.servers.kafka_pid)
        time.sleep(settings["seconds"])
        process.check()
        cpu, broker = cpu_seconds(process.pid) - cpu, cpu_seconds(run.servers.kafka_pid) - broker
        after = run.peer.metrics(run.start)
        return {
            "shards": shards,
            "client_cpu_share_of_core": cpu / settings["seconds"],
            "broker_cpu_share_of_core": broker / settings["seconds"],
            "transactions": transactions(after) - transactions(before),
            "memory_peak_bytes": memory_bytes(process.pid),
        }


def transactions(metrics):
    return sum(metrics.get("forebay_transactions_total", []))


def await_calm(run, process):
    """Until there was no transaction for a while."""
    last, since = transactions(run.peer.metrics(run.start)), time.monotonic()

    def calm():
        nonlocal last, since
        process.check()
        now = transactions(run.peer.metrics(run.start))
        if now != last:
            last, since = now, time.monotonic()
        return time.monotonic() - since >= CALM_SECONDS

    await_true("no transactions any more", CALM_WITHIN_SECONDS, calm, every=1)
