"""Throughput over time at a fixed load, through snapshots and one kill -9 with the disk left as it is."""

import time

from ..processes import await_true
from ..run import Run, together
from .latency import READY_SECONDS


def cases(settings):
    return [""]


def measure(bench, cell):
    settings = bench.settings_of(cell.workload, cell.measure)
    rate, seconds = settings["rate"], settings["seconds"]
    with Run(bench, cell, settings={"checkpoint": settings["checkpoint"]}) as run:
        process = run.go()
        sent = run.warm_up(1, 100)
        watch = run.watch(committed=True)
        await_true("the first committed output", READY_SECONDS, lambda: process.check() or watch.samples and watch.samples[-1]["offsets"] > 0)
        begin_us = int(time.time() * 1e6)
        generator = run.begin(*run.generate(rate * seconds, "--rate", rate, "--seed", 6, "--no-duplicates"))
        time.sleep(settings["kill_at_second"])
        process.check()
        killed_us = int(time.time() * 1e6)
        process.kill()
        process = run.go()
        watch.pids["client"] = process.pid
        both = together(sent, generator.result()["counts"])
        watch.await_offsets(run.expected_first(both), READY_SECONDS, process)
        samples = [sample for sample in watch.stop() if sample["us"] >= begin_us]
        run.summarize(both, digest=False)
        gap, since = longest_gap(samples)
        return {
            "rate": rate,
            "killed_at_second": (killed_us - begin_us) / 1e6,
            "longest_gap_seconds": gap,
            "longest_gap_from_second": (since - begin_us) / 1e6,
            "series": [[round((sample["us"] - begin_us) / 1e6, 2), sample["offsets"], sample["memory"]] for sample in samples],
        }


def longest_gap(samples):
    """The longest time without new committed records, and when it began."""
    longest, since = 0.0, samples[0]["us"]
    moved = samples[0]
    for sample in samples:
        if sample["offsets"] > moved["offsets"]:
            if sample["us"] - moved["us"] > longest:
                longest, since = sample["us"] - moved["us"], moved["us"]
            moved = sample
    return longest / 1e6, since
