"""Kafka Streams, exactly_once_v2. Its state is restored from the changelog topics that it keeps."""

from harness.peers import JavaPeer


class Peer(JavaPeer):
    title = "Kafka Streams"
    workloads = ["action"]
    variants = {"100ms": {"commit_ms": 100}, "1s": {"commit_ms": 1000}}
    runs = {
        "quick": {"drain": ["100ms"], "latency": ["100ms"], "restore": ["100ms"], "timeline": ["100ms"]},
        "full": {"drain": ["1s"], "latency": ["1s"]},
    }
    main_class = {"action": "dev.forebay.bench.streams.ActionJob"}

    def journal_prefix(self, start):
        return f"{start.id}-profiles-changelog"
