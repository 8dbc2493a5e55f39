"""What a drain costs as one thing grows: partitions, users, the size of a record, the number of outputs. Each case changes one of them; the case
`as-it-is` none."""

from ..run import Run, dataset
from . import drain as draining

# As many as the other measures have.
SHARDS_MAX = 12


def cases(settings):
    return list(settings["cases"])


def measure(bench, cell):
    settings = bench.settings_of(cell.workload, cell.measure)
    change = settings["cases"][cell.case]
    options = [word for name in ("ids", "pad") if name in change for word in (f"--{name}", change[name])]
    name = "-".join(["growth", *(f"{name}-{change[name]}" for name in ("partitions", "ids", "pad") if name in change)])
    partitions = change.get("partitions", bench.workloads[cell.workload]["partitions"])
    topic, made = dataset(bench, cell.workload, name, change.get("records", settings["records"]), *options, partitions=partitions)
    shards = {"shards": min(partitions, SHARDS_MAX)}
    with Run(bench, cell, input=topic, partitions=partitions, linger_ms=20, settings=shards, copies=change.get("copies", 1)) as run:
        return {**draining.drain(bench, run, topic, made), **change}
