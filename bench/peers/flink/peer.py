"""Flink with RocksDB and incremental checkpoints, exactly-once. Its checkpoints go to the local disk, which is faster than S3."""

import shutil

from harness.peers import JavaPeer


class Peer(JavaPeer):
    title = "Flink"
    workloads = ["action", "transform"]
    variants = {"1s": {"commit_ms": 1000}, "10s": {"commit_ms": 10000}}
    runs = {
        "quick": {"drain": ["1s"], "latency": ["1s"], "restore": ["1s"], "timeline": ["1s"]},
        "full": {"drain": ["10s"], "latency": ["10s"]},
    }
    main_class = {name: f"dev.forebay.bench.flink.{name.capitalize()}Job" for name in workloads}
    # Flink's own list for Java 17, as far as this job needs it.
    flags = [*JavaPeer.flags, *(word for package in ("util", "lang", "time") for word in ("--add-opens", f"java.base/java.{package}=ALL-UNNAMED"))]

    def properties(self, start):
        newest = self._newest_checkpoint(start)
        return {**super().properties(start), "state": start.folder / "flink", "restore": newest.as_uri() if newest else ""}

    def _newest_checkpoint(self, start):
        """One that is complete."""
        found = (start.folder / "flink" / "checkpoints").glob("*/chk-*/_metadata")
        return max((file.parent for file in found), key=lambda folder: folder.stat().st_mtime, default=None)

    def is_settled(self, start):
        return self._newest_checkpoint(start) is not None

    def wipe(self, start):
        shutil.rmtree(start.folder / "flink" / "rocksdb", ignore_errors=True)
