"""Forebay itself: `forebay run` on the workload's manifest, with its journal in Kafka and its snapshots on S3."""

import json
import os
import re
import subprocess
import urllib.error
import urllib.request

from harness import places
from harness.peers import PeerBase


class Peer(PeerBase):
    title = "Forebay"
    memory_bytes = 640 << 20
    workloads = ["action", "flights", "transform"]
    variants = {
        "100ms": {"commit_ms": 100},
        "20ms": {"commit_ms": 20},
        # As good as none: longer than any run.
        "100ms-no-snapshots": {"commit_ms": 100, "checkpoint": "10h"},
    }
    runs = {
        "quick": {
            "drain": ["100ms"], "latency": ["100ms", "20ms"], "snapshots": ["100ms", "100ms-no-snapshots"], "restore": ["100ms"],
            "timeline": ["100ms"], "idle": ["100ms"], "cold": ["100ms"],
            "growth": ["100ms"],
        },
        "full": {},
    }

    def version(self):
        return subprocess.run([places.FOREBAY, "--version"], stdout=subprocess.PIPE, text=True).stdout.split()[-1]

    def command(self, start):
        manifest = start.folder / "job.yaml"
        manifest.write_text(self.manifest(start))
        return [places.FOREBAY, "run", "-f", manifest, "--dir", start.folder, "--state-dir", start.state / "databases",
                "--kafka", start.kafka, "--store", start.s3_url, "--s3-endpoint", start.s3_endpoint, "--worker", "bench",
                "--threads", start.threads, "--memory", self._memory(start), "--metrics", self._metrics_address(start)]

    def _memory(self, start):
        """Of what it is held to half, as it takes by itself in a container; less where so little is left that the program itself needs it."""
        limit_mib = start.memory_limit >> 20
        return f"{max(16, min(limit_mib // 2, limit_mib - 80))}Mi" if limit_mib else f"{self.memory_bytes >> 20}Mi"

    def environment(self, start):
        key, secret = start.s3_keys
        return {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret, "AWS_REGION": "us-east-1",
                "RUST_LOG": start.settings.get("log", "info")}

    def manifest(self, start):
        """The workload's own, with this run's name, topics and intervals."""
        text = (places.BENCH / "workloads" / start.workload / start.settings.get("manifest", "job.yaml")).read_text()
        text = re.sub(r"(?m)^  name: .*$", f"  name: {start.id}", text, count=1)
        main = next(iter(start.outputs))
        copies = "".join(f"\n    - emit: {{topic: {main}-{number}}}" for number in range(2, start.copies + 1))
        text = text.replace(f"    - emit: {{topic: {main}}}", f"    - emit: {{topic: {main}}}{copies}")
        topics = {"events": start.input, **start.outputs}
        text = re.sub(r"\btopic: ([\w.-]+)", lambda found: f"topic: {topics[found[1]]}", text)
        text = re.sub(r"(commit:\n    interval: )\w+", rf"\g<1>{start.commit_ms}ms", text)
        if checkpoint := start.settings.get("checkpoint"):
            text = re.sub(r"(checkpoint:\n    interval: )\w+", rf"\g<1>{checkpoint}", text)
        if shards := start.settings.get("shards"):
            text = re.sub(r"(?m)^  shards: .*$", f"  shards: {shards}", text)
        return text

    def journal_prefix(self, start):
        return f"forebay.default.{start.id}.0.journal"

    def extra_topics(self, start):
        return [f"forebay.default.{start.id}."]

    def snapshot_objects(self, start):
        """Of the newest checkpoint of each shard. Each object is named under the job's prefix."""
        asked = [places.FOREBAY, "snapshot", "ls", "-o", "json", "-f", start.folder / "job.yaml", "--dir", start.folder, "--store", start.s3_url,
                 "--s3-endpoint", start.s3_endpoint]
        environment = {**os.environ, **self.environment(start)}

        def lines(command):
            printed = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, env=environment, text=True, check=True).stdout
            return [json.loads(line) for line in printed.splitlines()]

        objects = {}
        for shard in sorted({checkpoint["shard"] for checkpoint in lines(asked)}):
            inspect = [*asked[:2], "inspect", "--shard", shard, *asked[3:]]
            for file in lines(inspect)[0]["files"]:
                name = f"{start.s3_url.removeprefix('s3:/')}/default/{start.id}/default.{start.id}/0/{file['object']}"
                objects[name] = objects.get(name, 0) + file["size"]
        return objects

    def is_settled(self, start):
        """What no snapshot holds yet is in the journal."""
        return sum(self.metrics(start).get("forebay_shard_uncommitted_records", [1])) == 0

    def metrics(self, start):
        """Name -> the values of all its series; empty when it does not answer."""
        try:
            with urllib.request.urlopen(f"http://{self._metrics_address(start)}/metrics", timeout=5) as answer:
                text = answer.read().decode()
        except (urllib.error.URLError, OSError):
            return {}
        values = {}
        for line in text.splitlines():
            if line and not line.startswith("#"):
                name, value = line.split("{")[0].split()[0], line.rsplit(" ", 1)[1]
                values.setdefault(name, []).append(float(value))
        return values

    def _metrics_address(self, start):
        """Beside the broker's own ports, which come ten in a row."""
        return f"127.0.0.1:{int(start.kafka.rpartition(':')[2]) + 8}"
