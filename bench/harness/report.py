"""From cells to a table and plots. Every figure is min / median / max of the repetitions; ratios are of medians."""

import json
import pathlib
import statistics
import subprocess
import sys

from . import places
from .processes import BenchError

PLOTTING = places.HOME / "python"
PACKAGES = ["matplotlib==3.10.8"]


def install_plotting():
    """Into a virtual environment in the cache."""
    mark = PLOTTING / "installed"
    if mark.exists() and mark.read_text() == " ".join(PACKAGES):
        return
    PLOTTING.parent.mkdir(parents=True, exist_ok=True)
    for command in ([sys.executable, "-m", "venv", "--clear", PLOTTING],
                    [PLOTTING / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:", *PACKAGES]):
        run = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if run.returncode != 0:
            raise BenchError(f"install {PACKAGES}: {run.stdout[-1000:]}")
    mark.write_text(" ".join(PACKAGES))


def write(bench):
    """`README.md` with the tables, `summary.json` with the same figures, and the plots beside them."""
    cells = bench.done()
    if not cells:
        raise BenchError(f"there are no cells in {bench.results}")
    described = json.loads((bench.results / "machine.json").read_text())
    for cell in cells:
        cell["result"].update(derived(cell["result"], described["hardware"]["processors"]))
    groups = grouped(cells)
    draw(bench)
    parts = [head(bench, described, cells), *tables(bench, groups), musts(groups, bench.peers["forebay"].memory_bytes), plots(bench), settings(described)]
    (bench.results / "README.md").write_text("\n\n".join(part for part in parts if part) + "\n")
    summary = {"/".join(key): {name: spread(values) for name, values in figures(group).items()} for key, group in groups.items()}
    (bench.results / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")


def headline(kept):
    """A cell in a few words."""
    result = kept["result"]
    if "p50_ms" in result:
        return f"p50 {result['p50_ms']:.0f} p99 {result['p99_ms']:.0f} max {result['max_ms']:.0f} ms"
    if "records_per_second" in result:
        return f"{result['records_per_second']:,.0f}/s, {result['client_cpu_seconds_per_million']:.2f} + {result['broker_cpu_seconds_per_million']:.2f} CPU s/M"
    names = {"seconds_to_first_commit": "{:.1f} s to the first commit", "longest_gap_seconds": "longest gap {:.1f} s",
             "client_cpu_share_of_core": "{:.2%} of a core"}
    return next((text.format(result[name]) for name, text in names.items() if name in result), "")


def grouped(cells):
    """(workload, measure with case, contestant) -> its cells."""
    groups = {}
    for cell in cells:
        measure = cell["measure"] + (f"-{cell['case']}" if cell["case"] else "")
        groups.setdefault((cell["workload"], measure, f"{cell['peer']} {cell['variant']}"), []).append(cell)
    return groups


def derived(result, processors):
    """Figures that follow from others of a run."""
    figures = {}
    records = result.get("records_seen") or result.get("records")
    for name in ("output_log_bytes", "journal_log_bytes", "store_bytes"):
        if records and result.get(name) is not None:
            figures[f"{name}_per_record"] = result[name] / records
    if "load_cpu_seconds_per_million" in result:
        each = sum(result[f"{who}_cpu_seconds_per_million"] for who in ("client", "broker", "s3", "load"))
        figures["busy_share"] = result["rate"] * each / 1e6 / processors
    if seconds := result.get("seconds"):
        # Second, records, p50 ms and so on: whoever falls behind is later and later.
        tenth = max(1, len(seconds) // 10)
        p50 = [second[2] for second in seconds]
        figures["p50_drift"] = statistics.median(p50[-tenth:]) / statistics.median(p50[:tenth])
    return figures


def figures(group):
    """Name -> values of all repetitions, numbers only."""
    names = [name for name, value in group[0]["result"].items() if isinstance(value, (int, float))]
    return {name: [cell["result"][name] for cell in group if cell["result"].get(name) is not None] for name in names}


def spread(values):
    return {"min": min(values), "median": statistics.median(values), "max": max(values), "runs": len(values)}


def shown(values, scale=1.0, digits=1):
    """min / median / max, or the one value."""
    values = sorted(value * scale for value in values)
    text = [f"{value:,.{digits}f}" for value in (values[0], statistics.median(values), values[-1])]
    return text[1] if len(values) == 1 else f"{text[0]} / **{text[1]}** / {text[2]}"


# Columns of each measure's table: heading, figure, scale, digits.
CPU = [("client CPU s/M", "client_cpu_seconds_per_million", 1, 2), ("broker CPU s/M", "broker_cpu_seconds_per_million", 1, 2)]
MEMORY = [("peak MB", "memory_peak_bytes", 1e-6, 0)]
LATENCY = [(f"{name} ms", f"{name}_ms", 1, 0) for name in ("p50", "p99", "p999", "max")]
DRAIN = [("thousand events/s", "records_per_second", 1e-3, 0), *CPU, *MEMORY]
COLUMNS = {
    "drain": [*DRAIN, ("s to first output", "seconds_to_first_output", 1, 1)],
    "latency": [*LATENCY, *CPU, ("outputs B/event", "output_log_bytes_per_record", 1, 0), ("journal B/event", "journal_log_bytes_per_record", 1, 0),
                ("B to S3/event", "store_bytes_per_record", 1, 0), *MEMORY],
    "snapshots-drain": [*DRAIN, ("S3 CPU s/M", "s3_cpu_seconds_per_million", 1, 2),
                        ("B to S3/event", "store_bytes_per_record", 1, 0)],
    "snapshots-load": [("events/s", "rate", 1, 0), ("processors busy %", "busy_share", 100, 0), *LATENCY, ("p50, end : begin", "p50_drift", 1, 2), *CPU,
                       ("B to S3/event", "store_bytes_per_record", 1, 0)],
    "restore": [("s to first commit", "seconds_to_first_commit", 1, 1), ("state MB on disk", "folder_bytes", 1e-6, 0), ("MB to download", "snapshot_bytes", 1e-6, 0),
                ("s for a bare download", "seconds_to_download", 1, 1), *MEMORY],
    "timeline": [("events/s", "rate", 1, 0), ("longest gap s", "longest_gap_seconds", 1, 1)],
    "growth": DRAIN,
    "cold": [*DRAIN, ("of which it had", "memory_limit_bytes", 1e-6, 0), ("state MB", "state_bytes", 1e-6, 0),
             ("peak MB with page cache", "group_peak_bytes", 1e-6, 0), ("bytes read/event", "disk_read_bytes_per_record", 1, 0)],
    "idle": [("client % of a core", "client_cpu_share_of_core", 100, 2), ("broker % of a core", "broker_cpu_share_of_core", 100, 2),
             ("transactions", "transactions", 1, 0), *MEMORY],
}
TITLES = {
    "drain": "Drain of a backlog", "latency": "Latency at a fixed rate, read committed", "snapshots-drain": "Snapshots in a drain",
    "snapshots-load": "Snapshots at a fixed load", "restore": "Killed, disk wiped", "timeline": "Killed at a fixed load, disk kept",
    "idle": "Idle", "cold": "State ten times the memory, drain",
    "growth": "Drain as one thing grows",
}


def tables(bench, groups):
    for workload in bench.workloads:
        for measure in sorted({key[1] for key in groups if key[0] == workload}, key=order):
            yield table(bench, workload, measure, groups)


def order(measure):
    names = list(COLUMNS)
    return next((names.index(name) for name in names if measure == name), next((i for i, name in enumerate(names) if measure.startswith(name)), 99)), measure


def table(bench, workload, measure, groups):
    kind = next((name for name in COLUMNS if measure == name), measure.split("-")[0])
    columns = COLUMNS[kind]
    case = measure[len(kind) + 1:]
    lines = [f"## {workload}: {TITLES[kind]}" + (f" ({case})" if case else ""), "",
             "| | runs | " + " | ".join(heading for heading, *_ in columns) + " |", "|---|---|" + "---|" * len(columns)]
    for (of_workload, of_measure, contestant), group in groups.items():
        if (of_workload, of_measure) != (workload, measure):
            continue
        values = figures(group)
        row = [shown(values[name], scale, digits) if values.get(name) else "–" for _, name, scale, digits in columns]
        peer, variant = contestant.split(" ")
        lines.append(f"| {bench.peers[peer].title}, {variant} | {len(group)} | " + " | ".join(row) + " |")
    return "\n".join(lines)


def musts(groups, memory_limit):
    """The ratios that Forebay is held to, as far as both sides were measured. The limit is in bytes, of all runs that have none of their own."""

    def median(measure, contestant, name):
        group = groups.get(("action", measure, contestant))
        values = figures(group).get(name) if group else None
        return statistics.median(values) if values else None

    ours = "forebay 100ms"
    cpu, speed, memory = "client_cpu_seconds_per_million", "records_per_second", "memory_peak_bytes"
    rows = [(f"drain, client CPU, against {other}", median("drain", ours, cpu), median("drain", other, cpu), "≤", limit)
            for other, limit in [("hand-written 100ms", 1.25), ("flink 1s", 0.40), ("kafka-streams 100ms", 0.35)]]
    rows += [(f"drain, throughput, against {other}", median("drain", ours, speed), median("drain", other, speed), "≥", 2.0)
             for other in ("flink 1s", "kafka-streams 100ms")]
    rows.append(("drain, peak memory, against flink 1s", median("drain", ours, memory), median("drain", "flink 1s", memory), "≤", 0.40))
    peaks = [(cell["result"].get(memory), cell["result"].get("memory_limit_bytes", memory_limit)) for (_, _, contestant), group in groups.items()
             if contestant.startswith("forebay") for cell in group]
    peaks = [(peak, limit) for peak, limit in peaks if peak]
    if peaks:
        rows.append((f"peak memory, against its limit, the worst of {len(peaks)} runs", *max(peaks, key=lambda peak: peak[0] / peak[1]), "≤", 1.0))
    for name in ("p50_ms", "p99_ms", "p999_ms"):
        rows.append((f"latency, {name[:-3]}, against kafka-streams 100ms", median("latency", ours, name),
                     median("latency", "kafka-streams 100ms", name), "≤", 1.0))
        rows.append((f"latency, {name[:-3]}, against flink 1s", median("latency", ours, name), median("latency", "flink 1s", name), "≤", 0.2))
    rows.append(("latency, p50, commits every 20 ms against 100 ms", median("latency", "forebay 20ms", "p50_ms"),
                 median("latency", ours, "p50_ms"), "≤", 0.60))
    rows.append(("journal bytes against output bytes", median("latency", ours, "journal_log_bytes"),
                 median("latency", ours, "output_log_bytes"), "≤", 0.35))
    without = "forebay 100ms-no-snapshots"
    rows.append(("snapshots in a drain, client CPU, with against without", median("snapshots-drain", ours, cpu),
                 median("snapshots-drain", without, cpu), "≤", 1.10))
    rows.append(("snapshots at a fixed load, p99, with against without", median("snapshots-load", ours, "p99_ms"),
                 median("snapshots-load", without, "p99_ms"), "≤", 1.5))
    rows.append(("… p50 at its end against its begin: nothing falls behind", median("snapshots-load", ours, "p50_drift"), 1.0, "≤", 1.5))
    rows += [(f"{measure}, seconds to the first commit, against flink 1s", median(measure, ours, "seconds_to_first_commit"),
              median(measure, "flink 1s", "seconds_to_first_commit"), "≤", 1.0) for measure in ("restore-small", "restore-1GB")]
    rows.append(("restore-5GB, seconds to the first commit, against a bare download of the same", median("restore-5GB", ours, "seconds_to_first_commit"),
                 median("restore-5GB", ours, "seconds_to_download"), "≤", 2.0))
    many, one = (median(f"idle-{shards}-shards", ours, "client_cpu_share_of_core") for shards in (100, 1))
    if many is not None and one is not None:
        # A worker without any shard cannot be run; that of a job of one shard has all that such a one has.
        rows.append(("100 idle shards over one, of a core", max(0.0, many - one), 1.0, "≤", 0.01))
        rows.append(("100 idle shards, transactions, against none", median("idle-100-shards", ours, "transactions") + 1, 1, "≤", 1.0))
    lines = ["## What Forebay is held to", "", "| | Forebay | the other | ratio | must | |", "|---|---|---|---|---|---|"]
    for what, mine, other, sign, limit in rows:
        if mine is None or not other:
            continue
        ratio = mine / other
        kept = ratio <= limit if sign == "≤" else ratio >= limit
        lines.append(f"| {what} | {number(mine)} | {number(other)} | {ratio:.2f} | {sign} {limit:g} | {'yes' if kept else '**no**'} |")
    return "\n".join(lines) if len(lines) > 4 else ""


def number(value):
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def head(bench, described, cells):
    hardware, versions = described["hardware"], described["versions"]
    return (f"# Results {bench.results.name}\n\n"
            f"Made by `bench/bench.py run --size {described['size']}`; how to read them: [bench/README.md](../../README.md). "
            "Each figure is min / **median** / max of the runs. Broker, S3 server, generator and contestants share one machine: read the ratios, "
            "not the absolutes.\n\n"
            f"{hardware['processors']} processors ({hardware['processor']}), {hardware['memory_gib']} GiB, {hardware['disk']}, "
            f"Linux {hardware['kernel']}. " + ", ".join(f"{name} {version}" for name, version in versions.items()) + ". " + commits(cells) +
            "Told to keep to " + ", ".join(f"{bench.peers[name].title} {mib} MiB" for name, mib in described.get("memory_mib", {}).items()) + ".")


def commits(cells):
    """Where they were not all made by one."""
    all_of_them = sorted({cell["commit"] for cell in cells if cell.get("commit")})
    return f"Cells are of the commits {', '.join(all_of_them)}. " if len(all_of_them) > 1 else ""


def plots(bench):
    files = sorted(bench.results.glob("*.png"))
    return "## Plots\n\n" + "\n\n".join(f"![{file.stem}]({file.name})" for file in files) if files else ""


def settings(described):
    return ("## Settings\n\n`machine.json` has all of it. Broker: `" + described["broker_jvm"] + "`.\n\n```json\n"
            + json.dumps(described["settings"], indent=1) + "\n```")


def draw(bench):
    install_plotting()
    script = pathlib.Path(__file__).with_name("plots.py")
    titles = json.dumps({name: peer.title for name, peer in bench.peers.items()})
    run = subprocess.run([str(PLOTTING / "bin" / "python"), str(script), str(bench.results), titles],
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if run.returncode != 0:
        raise BenchError(f"the plots could not be made: {run.stdout[-2000:]}")
