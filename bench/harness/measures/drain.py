"""How fast a backlog is worked off, and what it costs: throughput, processor time of client and broker apart, peak memory."""

from ..processes import memory_bytes
from ..run import Run, agree, dataset

# Start and end are left out: programs warm up, and the last commit takes its time.
WINDOW = (0.2, 0.9)
# For any progress at all; the slowest is the first output of a cold program.
PATIENCE_SECONDS = 240


def cases(settings):
    return [""]


def measure(bench, cell):
    settings = bench.settings_of(cell.workload, cell.measure)
    topic, made = dataset(bench, cell.workload, "drain", settings["records"])
    with Run(bench, cell, input=topic, linger_ms=20) as run:
        return drain(bench, run, topic, made)


def drain(bench, run, topic, made, skip=0.0):
    """The first share of the records may be skipped: they are worked off, and not measured."""
    total = run.expected_first(made)
    process = run.go()
    watch = run.watch()
    watch.await_offsets(total, PATIENCE_SECONDS, process)
    samples = watch.stop()
    summary = run.summarize(made)
    if not run.peer.forwards_only:
        agree(bench, topic, summary)
    window = [skip + share * (1 - skip) for share in WINDOW]
    begin, end = (at(samples, share * total) for share in window)
    # Counted in records of the input: what is rejected or a duplicate is work too.
    millions = (window[1] - window[0]) * made["records"] / 1e6
    seconds = (end["us"] - begin["us"]) / 1e6
    first = next(sample for sample in samples if sample["offsets"] > 0)
    return {
        "records": made["records"],
        "records_per_second": millions * 1e6 / seconds,
        "client_cpu_seconds_per_million": (end["client"] - begin["client"]) / millions,
        "broker_cpu_seconds_per_million": (end["broker"] - begin["broker"]) / millions,
        "s3_cpu_seconds_per_million": (end["s3"] - begin["s3"]) / millions,
        "client_cpu_seconds_whole": samples[-1]["client"],
        "seconds_to_first_output": (first["us"] - samples[0]["us"]) / 1e6,
        "seconds_whole": (samples[-1]["us"] - samples[0]["us"]) / 1e6,
        "memory_peak_bytes": memory_bytes(process.pid),
        "disk_read_bytes_per_record": (end["read"] - begin["read"]) / (millions * 1e6),
        "documents_digest": summary["digest"],
        "series": series(samples),
    }


def at(samples, offsets):
    """The sample at which a topic had so many offsets, between two that were taken."""
    before = samples[0]
    for sample in samples:
        if sample["offsets"] >= offsets:
            span = sample["offsets"] - before["offsets"]
            share = (offsets - before["offsets"]) / span if span > 0 else 1.0
            return {name: before[name] + share * (value - before[name]) for name, value in sample.items()}
        before = sample
    return samples[-1]


def series(samples):
    """[seconds since the start, offsets], for plots."""
    return [[round((sample["us"] - samples[0]["us"]) / 1e6, 2), sample["offsets"]] for sample in samples]
