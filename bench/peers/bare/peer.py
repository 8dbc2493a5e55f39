"""The least that exactly-once costs: librdkafka alone consumes and produces the same bytes in transactions."""

from harness import places
from harness.peers import PeerBase


class Peer(PeerBase):
    title = "bare client (forwards only)"
    workloads = ["action", "transform"]
    runs = {"quick": {"drain": ["100ms"]}, "full": {}}
    # Does not do the work, so its output is the input.
    forwards_only = True

    def command(self, start):
        return [places.LOAD, "--kafka", start.kafka, "forward", "--input", start.input, "--output", next(iter(start.outputs.values())),
                "--commit-ms", start.commit_ms, "--linger-ms", start.linger_ms]

