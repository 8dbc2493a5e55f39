"""Plots of a results folder: `plots.py FOLDER TITLES_AS_JSON`. Needs matplotlib; run by report.py with the Python that has it."""

import json
import pathlib
import statistics
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

# By contestant, the same in every plot.
COLORS = {"forebay": "#d1495b", "hand-written": "#6c757d", "bare": "#adb5bd", "kafka-streams": "#00798c", "flink": "#edae49"}
STYLES = ["-", "--", ":", "-."]


def load(folder):
    return [json.loads(file.read_text()) for file in sorted((folder / "cells").glob("*.json"))]


def by_contestant(cells, measure, case=None):
    """(workload, peer, variant) -> cells, in the order of their names."""
    groups = {}
    for cell in cells:
        if cell["measure"] == measure and case in (None, cell["case"]):
            groups.setdefault((cell["workload"], cell["peer"], cell["variant"]), []).append(cell)
    return groups


class Look:
    """Name, colour and line of each contestant."""

    def __init__(self, titles):
        self.titles = titles
        self.seen = {}

    def of(self, peer, variant):
        variants = self.seen.setdefault(peer, [])
        if variant not in variants:
            variants.append(variant)
        style = STYLES[variants.index(variant) % len(STYLES)]
        return {"label": f"{self.titles.get(peer, peer)}, {variant}", "color": COLORS.get(peer, "#5f4bb6"), "linestyle": style}


def save(figure, folder, name):
    figure.tight_layout()
    figure.savefig(folder / f"{name}.png", dpi=110)
    plt.close(figure)


def throughput(folder, cells, look):
    for workload in sorted({cell["workload"] for cell in cells if cell["measure"] == "drain"}):
        groups = {key: group for key, group in by_contestant(cells, "drain").items() if key[0] == workload}
        names = [look.of(peer, variant)["label"] for _, peer, variant in groups]
        colors = [look.of(peer, variant)["color"] for _, peer, variant in groups]
        figure, axes = plt.subplots(1, 2, figsize=(11, 0.5 * len(groups) + 1.6), sharey=True)
        for axis, field, title in [(axes[0], "records_per_second", "thousand events/s"),
                                   (axes[1], "client_cpu_seconds_per_million", "client CPU seconds per million events")]:
            scale = 1e-3 if field == "records_per_second" else 1
            values = [[cell["result"][field] * scale for cell in group] for group in groups.values()]
            middle = [statistics.median(of) for of in values]
            errors = [[m - min(of) for m, of in zip(middle, values)], [max(of) - m for m, of in zip(middle, values)]]
            bars = axis.barh(names, middle, xerr=errors, color=colors, error_kw={"elinewidth": 1, "capsize": 3})
            axis.bar_label(bars, [f" {m:,.0f}" if scale != 1 else f" {m:.1f}" for m in middle], padding=6)
            axis.set_xlabel(title)
            axis.margins(x=0.18)
            axis.spines[["top", "right"]].set_visible(False)
        axes[0].invert_yaxis()
        figure.suptitle(f"{workload}: drain of a backlog (median, min to max)")
        save(figure, folder, f"{workload}-throughput")


def latency(folder, cells, look):
    for workload in sorted({cell["workload"] for cell in cells if cell["measure"] == "latency"}):
        figure, axis = plt.subplots(figsize=(9, 5))
        for (of_workload, peer, variant), group in by_contestant(cells, "latency").items():
            if of_workload != workload:
                continue
            # The run in the middle by its p99.
            cell = sorted(group, key=lambda cell: cell["result"]["p99_ms"])[len(group) // 2]
            curve = [(1 / (1 - quantile), value) for quantile, value in cell["result"]["curve"] if quantile < 1]
            axis.plot([x for x, _ in curve], [y for _, y in curve], **look.of(peer, variant))
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_xticks([1, 2, 10, 100, 1000, 10000], ["0", "50%", "90%", "99%", "99.9%", "99.99%"])
        axis.set_xlabel("share of records")
        axis.set_ylabel("ms until visible to a read_committed reader")
        axis.grid(True, which="both", alpha=0.25)
        axis.legend()
        rate = next(cell["result"]["rate"] for cell in cells if (cell["measure"], cell["workload"]) == ("latency", workload))
        figure.suptitle(f"{workload}: latency at {rate:,} events/s")
        save(figure, folder, f"{workload}-latency")


def over_time(folder, cells, look):
    for workload in sorted({cell["workload"] for cell in cells if cell["measure"] == "timeline"}):
        groups = {key: group for key, group in by_contestant(cells, "timeline").items() if key[0] == workload}
        figure, axes = plt.subplots(len(groups), 1, figsize=(10, 2.1 * len(groups) + 0.8), sharex=True, sharey=True, squeeze=False)
        for axis, ((_, peer, variant), group) in zip(axes[:, 0], groups.items()):
            result = group[0]["result"]
            times, rates = rates_of(result["series"])
            style = look.of(peer, variant)
            axis.step(times, [rate / 1e3 for rate in rates], where="pre", color=style["color"])
            axis.axvline(result["killed_at_second"], color="black", linewidth=1, linestyle=":")
            axis.set_title(f"{style['label']}: longest gap {result['longest_gap_seconds']:.1f} s", fontsize=10, loc="left")
            axis.spines[["top", "right"]].set_visible(False)
        axes[-1, 0].set_xlabel("seconds; the dotted line is kill -9 and the restart")
        figure.supylabel("thousand committed events/s")
        save(figure, folder, f"{workload}-over-time")


def rates_of(series, bucket=0.5):
    """Committed records per second, in buckets."""
    times, rates = [], []
    since, offsets, *_ = series[0]
    for at, count, *_ in series[1:]:
        if at - since >= bucket:
            times.append(at)
            rates.append((count - offsets) / (at - since))
            since, offsets = at, count
    return times, rates


def through_snapshots(folder, cells, look):
    for workload in sorted({cell["workload"] for cell in cells if cell["measure"] == "snapshots"}):
        figure, axes = plt.subplots(2, 1, figsize=(10, 6))
        for (of_workload, peer, variant), group in by_contestant(cells, "snapshots", "load").items():
            if of_workload == workload:
                seconds = group[0]["result"]["seconds"]
                axes[0].plot([row[0] for row in seconds], [row[3] for row in seconds], **look.of(peer, variant))
        axes[0].set(ylabel="p99 ms", xlabel="seconds at a fixed load", ylim=(0, None))
        axes[0].legend()
        for (of_workload, peer, variant), group in by_contestant(cells, "snapshots", "drain").items():
            if of_workload == workload:
                times, rates = rates_of(group[0]["result"]["series"], 1.0)
                axes[1].plot(times, [rate / 1e3 for rate in rates], **look.of(peer, variant))
        axes[1].set(ylabel="thousand events/s", xlabel="seconds of a drain", ylim=(0, None))
        figure.suptitle(f"{workload}: with snapshots and without")
        save(figure, folder, f"{workload}-snapshots")


def main():
    folder, titles = pathlib.Path(sys.argv[1]), json.loads(sys.argv[2])
    cells, look = load(folder), Look(titles)
    for draw in (throughput, latency, over_time, through_snapshots):
        draw(folder, cells, look)


if __name__ == "__main__":
    main()
