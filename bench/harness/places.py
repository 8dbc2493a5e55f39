"""Where things lie."""

import os
import pathlib

BENCH = pathlib.Path(__file__).resolve().parent.parent
ROOT = BENCH.parent
RESULTS = BENCH / "results"

CACHE = pathlib.Path(
    os.environ.get("FOREBAY_CACHE") or pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "forebay"
).resolve()
# All that the bench downloads, builds and writes, besides results.
HOME = CACHE / "bench"
BUILT = HOME / "peers"
RUNS = HOME / "runs"
STACK_RUN = pathlib.Path(os.environ.get("BENCH_STACK_RUN") or HOME / "servers")

TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or CACHE / "target")
# How Forebay and the hand-written contestants were built: `dist`, as images have them, or `release`.
PROFILE = os.environ.get("BENCH_PROFILE", "dist")
FOREBAY = TARGET / PROFILE / "forebay" if PROFILE != "release" else pathlib.Path(os.environ.get("FOREBAY_BIN") or TARGET / "release" / "forebay")
LOAD = TARGET / PROFILE / "forebay-bench-load"
STACK = ROOT / "e2e" / "stack" / "stack"
