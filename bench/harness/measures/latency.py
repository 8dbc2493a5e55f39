"""How old a record is when a reader of committed records can see its output, at a fixed rate; and at that rate the processor time and the
bytes that go to the broker's logs."""

import time

from .. import load
from ..processes import BenchError, await_true, cpu_seconds, memory_bytes
from ..run import Run, together
from ..servers import LogSizes

# From the start of a contestant to its first committed output.
READY_SECONDS = 180
# Without a new committed record.
PATIENCE_SECONDS = 60


def cases(settings):
    return [""]


def measure(bench, cell):
    settings = bench.settings_of(cell.workload, cell.measure)
    with Run(bench, cell) as run:
        return at_rate(bench, run, settings["rate"], settings["warm_seconds"], settings["seconds"])


def at_rate(bench, run, rate, warm_seconds, seconds):
    process = run.go()
    # It is ready when it has committed something.
    sent = run.warm_up(1, 100)
    watch = run.watch(committed=True)
    await_true("the first committed output", READY_SECONDS, lambda: process.check() or watch.samples and watch.samples[-1]["offsets"] > 0)
    sizes = LogSizes(run.servers.kafka_data, run.id)
    journal = run.peer.journal_prefix(run.start)
    journal_sizes = LogSizes(run.servers.kafka_data, journal) if journal else None
    watch.also = lambda: (sizes.look(), journal_sizes and journal_sizes.look())

    load_of = run.generate((warm_seconds + seconds) * rate, "--rate", rate, "--seed", 5, "--no-duplicates")
    both = together(sent, load.call(run.servers, *load_of, "--count-only")["counts"])
    wanted = run.expected_first(both)
    start_us = int(time.time() * 1e6)
    reader = run.begin("latency", "--topic", run.main_output, "--from-us", start_us + warm_seconds * 1_000_000, "--records", wanted,
                       "--patience-seconds", PATIENCE_SECONDS)
    generator = run.begin(*load_of)
    time.sleep(warm_seconds)
    load_pids = [child.child.pid for child in (generator, reader, watch)]
    begin = snapshot(run, process, load_pids)
    time.sleep(seconds)
    end = snapshot(run, process, load_pids)
    made, result = generator.result(), reader.result()
    if result["records_seen"] != wanted:
        raise BenchError(f"{result['records_seen']} of {wanted} records could be seen, {run.input_offsets()} of {both['records']} are in the input; "
                         f"its log: {process.log}")
    run.summarize(both, digest=False)
    watch.stop()
    million = rate * seconds / 1e6
    outputs = sum(size for topic, size in sizes.by_topic().items() if topic in run.start.outputs.values())
    return {
        "rate": rate,
        **result,
        "client_cpu_seconds_per_million": (end["client"] - begin["client"]) / million,
        "broker_cpu_seconds_per_million": (end["broker"] - begin["broker"]) / million,
        "s3_cpu_seconds_per_million": (end["s3"] - begin["s3"]) / million,
        "load_cpu_seconds_per_million": (end["load"] - begin["load"]) / million,
        "generator_seconds_late": made["seconds"] - (warm_seconds + seconds),
        "output_log_bytes": outputs,
        "journal_log_bytes": sum(journal_sizes.by_topic().values()) if journal else None,
        "memory_peak_bytes": memory_bytes(process.pid),
    }


def snapshot(run, process, load_pids):
    process.check()
    pids = {"client": [process.pid], "broker": [run.servers.kafka_pid], "s3": [run.servers.s3_pid], "load": load_pids}
    return {name: sum(map(cpu_seconds, those)) for name, those in pids.items()}
