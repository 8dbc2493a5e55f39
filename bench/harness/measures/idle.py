"""What a job costs that has nothing to do, by its number of shards."""

import time

from ..processes import await_true, cpu_seconds, memory_bytes
from ..run import Run
from .latency import READY_SECONDS

# Claims, first epochs and the like are over by then.
CALM_SECONDS = 5


def cases(settings):
    return [f"{shards}-shards" for shards in settings["shards"]]


def measure(bench, cell):
    settings = bench.settings["idle"]
    shards = int(cell.case.split("-")[0])
    with Run(bench, cell, partitions=settings["partitions"], settings={"shards": shards}) as run:
        process = run.go()

        def running():
            process.check()
            return sum(run.peer.metrics(run.start).get("forebay_shard_running", [])) == shards

        await_true(f"{shards} running shards", READY_SECONDS, running)
        time.sleep(CALM_SECONDS)
        before, cpu, broker = run.peer.metrics(run.start), cpu_seconds(process.pid), cpu_seconds(run.servers.kafka_pid)
        time.sleep(settings["seconds"])
        process.check()
        cpu, broker = cpu_seconds(process.pid) - cpu, cpu_seconds(run.servers.kafka_pid) - broker
        after = run.peer.metrics(run.start)
        name = "forebay_transactions_total"
        return {
            "shards": shards,
            "client_cpu_share_of_core": cpu / settings["seconds"],
            "broker_cpu_share_of_core": broker / settings["seconds"],
            "transactions": sum(after.get(name, [])) - sum(before.get(name, [])),
            "memory_peak_bytes": memory_bytes(process.pid),
        }
