"""The whole workload as one would write it by hand on librdkafka and RocksDB: the limit to come close to. No journal, no snapshots."""

from harness import places
from harness.peers import PeerBase


class Peer(PeerBase):
    title = "hand-written loop"
    workloads = ["action", "transform"]
    runs = {"quick": {"drain": ["100ms"], "latency": ["100ms"]}, "full": {}}

    def command(self, start):
        outputs = [word for topic in start.outputs.values() for word in ("--output", topic)]
        return [places.LOAD, "--kafka", start.kafka, start.workload, "--input", start.input, *outputs, "--state", start.state / "rocksdb",
                "--commit-ms", start.commit_ms, "--linger-ms", start.linger_ms]
