"""What the results were made with: hardware, versions, settings."""

import json
import os
import pathlib
import platform
import subprocess

from . import places


def load_average():
    return round(os.getloadavg()[0], 2)


def write(bench):
    """Into the results' folder, before the first cell."""
    described = {
        "size": bench.size,
        "hardware": hardware(),
        "versions": {
            "commit": commit(),
            "profile": places.PROFILE,
            "kafka": pathlib.Path(places.STACK.parent / "kafka" / "pom.xml").read_text().split("<kafka.version>")[1].split("<")[0],
            "java": printed(["java", "-version"]).splitlines()[0],
            "seaweedfs": (places.STACK.parent / "s3.sh").read_text().split("S3_VERSION=")[1].split("\n")[0],
            "librdkafka": (places.ROOT / "Cargo.lock").read_text().split('name = "rdkafka-sys"\nversion = "')[1].split('"')[0].partition("+")[2],
            "rust": printed(["rustc", "--version"]),
            **{name: peer.version() for name, peer in bench.peers.items() if peer.version()},
        },
        "broker_jvm": bench.servers.environment["FOREBAY_KAFKA_JVM"],
        "memory_mib": {name: peer.memory_bytes >> 20 for name, peer in bench.peers.items() if peer.memory_bytes},
        "settings": bench.settings,
        "workloads": bench.workloads,
    }
    (bench.results / "machine.json").write_text(json.dumps(described, indent=1) + "\n")


def hardware():
    return {
        "processor": first("/proc/cpuinfo", "model name"),
        "processors": os.cpu_count(),
        "memory_gib": round(int(first("/proc/meminfo", "MemTotal").split()[0]) / (1 << 20), 1),
        "disk": disk(),
        "kernel": platform.release(),
    }


def commit():
    """What is checked out, with `-dirty` where the tree differs from it. Results do not count: each cell would make those after it dirty."""
    git = ["git", "-C", places.ROOT]
    changed = printed([*git, "status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude)bench/results"])
    return printed([*git, "describe", "--always"]) + ("-dirty" if changed else "")


def first(path, field):
    for line in pathlib.Path(path).read_text().splitlines():
        if line.startswith(field):
            return line.split(":", 1)[1].strip()
    return "0"


def disk():
    """What lies under the servers' data."""
    lines = printed(["df", "--output=fstype,source", places.CACHE]).splitlines()
    return " ".join(lines[-1].split()) if lines else ""


def printed(command):
    try:
        run = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    except OSError:
        return ""
    return run.stdout.strip()
