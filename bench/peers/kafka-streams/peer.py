"""Kafka Streams, exactly_once_v2. Its state is restored from the changelog topics that it keeps."""

from harness.peers import JavaPeer


class Peer(JavaPeer):
    title = "Kafka Streams"
    workloads = ["action", "flights", "transform"]
    variants = {"100ms": {"commit_ms": 100}, "1s": {"commit_ms": 1000}}
    memory_mib_min = 512
    runs = {
        "quick": {"drain": ["100ms"], "latency": ["100ms"], "restore": ["100ms"], "timeline": ["100ms"], "growth": ["100ms"],
                  "cold": ["100ms"]},
        "full": {"drain": ["1s"], "latency": ["1s"]},
    }
    main_class = {name: f"dev.forebay.bench.streams.{name.capitalize()}Job" for name in workloads}

    def properties(self, start):
        # RocksDB's caches and memtables of all stores together; without a limit they are what each store takes.
        return {**super().properties(start), "rocksdb.mb": (start.memory_limit >> 20) // 5}

    def journal_prefix(self, start):
        """Its own topics are changelogs only; those of the run have a dot there."""
        return f"{start.id}-"
