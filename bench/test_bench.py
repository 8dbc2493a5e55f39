#!/usr/bin/env python3
"""Tests of the bench's own sums, without servers and without contestants: `python3 bench/test_bench.py`."""

import collections
import pathlib
import subprocess
import sys
import tempfile
import unittest
from unittest import mock

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import bench  # noqa: E402
from harness import machine, measures, moves, peers, places, report, scale  # noqa: E402
from harness.measures import drain, snapshots, timeline  # noqa: E402
from harness.peers import Start  # noqa: E402
from harness.run import THREADS, Run, together  # noqa: E402
from harness.servers import LogSizes  # noqa: E402


def sample(us, offsets, client=0.0):
    return {"us": us, "offsets": offsets, "client": client}


Cell = collections.namedtuple("Cell", "workload peer")


class FakeServers:
    kafka, s3_endpoint, s3_keys = "k:1", "", ("", "")


class Sums(unittest.TestCase):
    def test_a_moment_between_two_samples_is_interpolated(self):
        samples = [sample(0, 0), sample(1_000_000, 0, 2.0), sample(2_000_000, 100, 4.0)]
        self.assertEqual(drain.at(samples, 25), sample(1_250_000, 25, 2.5))
        self.assertEqual(drain.at(samples, 1000), samples[-1])

    def test_the_longest_gap_ends_with_progress(self):
        samples = [sample(0, 0), sample(1_000_000, 5), sample(2_000_000, 5), sample(4_000_000, 6), sample(9_000_000, 6)]
        self.assertEqual(timeline.longest_gap(samples), (3.0, 1_000_000))

    def test_what_generator_and_reader_take_is_not_there_for_the_contestant(self):
        done = {
            "drain": [{"workload": "action", "peer": peer, "result": {"records_per_second": rate}} for peer, rate in [("a", 90_000), ("a", 100_000), ("a", 110_000), ("b", 1)]],
            "latency": [{"workload": "action", "peer": "a", "result": {"load_cpu_seconds_per_million": 5.0 * THREADS}}],
        }

        class Bench:
            def done(self, measure):
                return done[measure]

        # Ten microseconds a record by itself, five more for the others.
        self.assertAlmostEqual(snapshots.sustained_rate(Bench(), Cell("action", "a")), 1e6 / 15)
        self.assertEqual(snapshots.sustained_rate(Bench(), Cell("action", "b")), 0)
        self.assertEqual(snapshots.sustained_rate(Bench(), Cell("flights", "a")), 0)

    def test_bytes_of_segments_that_are_deleted_still_count(self):
        with tempfile.TemporaryDirectory() as folder:
            partition = pathlib.Path(folder, "run.updates-0")
            partition.mkdir()
            (partition / "0.log").write_bytes(b"x" * 10)
            (partition / "0.index").write_bytes(b"x" * 1000)
            sizes = LogSizes(folder, "run.")
            sizes.look()
            (partition / "0.log").unlink()
            (partition / "7.log").write_bytes(b"x" * 5)
            sizes.look()
            self.assertEqual(sizes.by_topic(), {"run.updates": 15})


class Commits(unittest.TestCase):
    def test_a_tree_is_dirty_by_what_is_measured_and_not_by_results(self):
        with tempfile.TemporaryDirectory() as folder, mock.patch.object(places, "ROOT", pathlib.Path(folder)):
            code, cell = pathlib.Path(folder, "code"), pathlib.Path(folder, "bench", "results", "cell")
            cell.parent.mkdir(parents=True)
            for file in (code, cell):
                file.write_text("before")
            for words in (["init", "-q"], ["add", "."], ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-q", "-m", "t"]):
                subprocess.run(["git", "-C", folder, *words], check=True)
            clean = machine.commit()
            self.assertRegex(clean, "^[0-9a-f]{7,}$")
            cell.write_text("after")
            self.assertEqual(machine.commit(), clean)
            code.write_text("after")
            self.assertEqual(machine.commit(), f"{clean}-dirty")


class Reports(unittest.TestCase):
    def cell(self, peer, variant, value, number=1):
        result = {"client_cpu_seconds_per_million": value, "records_per_second": 1e6 / value, "memory_peak_bytes": value}
        return {"workload": "action", "measure": "drain", "case": "", "peer": peer, "variant": variant, "number": number, "result": result}

    def test_ratios_are_of_medians(self):
        cells = [self.cell("forebay", "100ms", value) for value in (5.0, 6.0, 60.0)] + [self.cell("hand-written", "100ms", 5.0)]
        text = report.musts(report.grouped(cells), 80)
        self.assertIn("| drain, client CPU, against hand-written 100ms | 6 | 5 | 1.20 | ≤ 1.25 | yes |", text)
        self.assertIn("| peak memory, against its limit, the worst of 3 runs | 60 | 80 | 0.75 | ≤ 1 | yes |", text)
        self.assertNotIn("flink", text)

    def test_whoever_falls_behind_is_told_by_the_end_of_the_run(self):
        costs = {f"{who}_cpu_seconds_per_million": 10.0 for who in ("client", "broker", "s3", "load")}
        result = {"rate": 30_000, "records_seen": 100, "store_bytes": 500, "seconds": [[second, 1, 50.0 * (second + 1)] for second in range(20)], **costs}
        self.assertEqual(report.derived(result, 2), {"store_bytes_per_record": 5.0, "busy_share": 0.6, "p50_drift": 975.0 / 75.0})

    def test_spread_is_shown_where_there_is_one(self):
        self.assertEqual(report.shown([3.0, 1.0, 2.0]), "1.0 / **2.0** / 3.0")
        self.assertEqual(report.shown([3.0]), "3.0")


class Cluster(unittest.TestCase):
    def test_a_percentile_is_the_bound_of_its_bucket(self):
        text = "# TYPE s histogram\ns_bucket{le=\"0.01\"} 98\ns_bucket{le=\"0.05\"} 99\ns_bucket{le=\"+Inf\"} 100\ns_count 100\n"
        self.assertEqual(scale.p99_ms(scale.parsed(text), "s"), 50)
        self.assertEqual(scale.p99_ms({}, "s"), float("inf"))

    def test_what_the_cluster_writes_by_itself_is_told_from_what_is_written_for_jobs(self):
        before = {"leases PUT": 5, "pods POST": 3, "ingestionjobs APPLY": 1}
        after = {"leases PUT": 9, "pods POST": 3, "ingestionjobs APPLY": 1, "events POST": 2}
        self.assertEqual(scale.difference(before, after), {"leases PUT": 4, "events POST": 2})
        self.assertEqual(scale.of_jobs(scale.difference(before, after)), {"events POST": 2})

    def run_of(self, jobs=200, **changed):
        memory = dict.fromkeys(scale.MEMORY, 49_900_000)
        times = dict.fromkeys(["deciding_p99_ms_at_most", "again_deciding_p99_ms_at_most", "quiet_deciding_p99_ms_at_most", "quiet_look_p99_ms_at_most"], 20.0)
        counts = dict.fromkeys(["pods", "errors", "quiet_cpu_share_of_core", "quiet_looks_per_second", "seconds_until_all_run", "seconds_to_make_jobs", "again_seconds"], 1)
        return {"jobs": jobs, "workers_per_job": 2, "memory_bytes_without_jobs": 1, "quiet_writes": {}, "quiet_changes": [], "quiet_writes_of_the_cluster": {},
                **memory, **times, **counts, **changed}

    def test_what_an_operator_must_reach_is_judged_by_the_worst_of_its_figures(self):
        self.assertEqual(scale.missed(self.run_of(), 50), [])
        self.assertNotIn("**no**", scale.table({"result": self.run_of()}))
        for name in scale.MEMORY:
            run = self.run_of(**{name: 50_000_000})
            self.assertEqual((len(scale.missed(run, 50)), scale.missed(run, 55)), (1, []), name)
            self.assertIn("| resident memory of the operator, at its worst | 50.0 MB | < 50 MB | **no** |", scale.table({"result": run}), name)
            self.assertEqual(scale.missed({**run, "jobs": 1000}, 50), [], "so many jobs may take more")
        for name in ("deciding_p99_ms_at_most", "again_deciding_p99_ms_at_most"):
            run = self.run_of(**{name: 50.0})
            self.assertIn("| ≤ 50 ms | < 50 ms | **no** |", scale.table({"result": run}), name)
        for jobs in (200, 1000):
            run = self.run_of(jobs, quiet_writes={"pods PATCH": 1.0}, quiet_changes=["flights-0001: phase a -> b"])
            self.assertIn("flights-0001: phase a -> b", scale.missed(run, 50)[0])
            self.assertIn("0 | **no** |" if jobs == 200 else "flights-0001", scale.table({"result": run}))

    def test_a_run_of_former_days_still_has_a_table(self):
        run = self.run_of(memory_peak_bytes=49_000_000)
        del run["again_memory_peak_bytes"], run["again_deciding_p99_ms_at_most"]
        self.assertIn("| resident memory of the operator, at its worst | 49.9 MB | < 50 MB | yes |", scale.table({"result": run}))

    def test_jobs_get_names_and_servers(self):
        text = scale.manifest(7, 2)
        self.assertIn("  name: flights-0007\n  namespace: default\nspec:\n  kafka: {", text)
        self.assertIn("workers: {replicas: 2,", text)

    def test_the_latest_record_of_an_event_is_told_from_a_calm_one(self):
        seconds = [[second, 1000, 90.0, 150.0, 200.0] for second in range(60)]
        seconds[21][4] = 4000.0
        event = {"from_s": 20.5, "until_s": 24.0}
        self.assertEqual(moves.around(seconds, event), {"latest_ms": 4000.0, "p50_ms": 90.0})
        self.assertEqual(moves.calm(seconds, {"move": event}), {"latest_ms": 200.0, "p50_ms": 90.0})

    def test_the_job_whose_shards_move_is_the_workload_for_a_cluster(self):
        text = moves.manifest("10.99.0.1:1", "http://10.99.0.1:2")
        self.assertIn("spec:\n  upgrade: {observe: 5s}\n  kafka: {bootstrapServers: \"10.99.0.1:1\"}", text)
        self.assertIn("  shards: 4\n", text)


class Plan(unittest.TestCase):
    def test_contestants_take_turns_and_no_cell_comes_twice(self):
        cells = [cell.name for cell in bench.Bench("quick", "none").cells()]
        self.assertEqual(len(cells), len(set(cells)))
        drains = [name for name in cells if name.startswith("action.drain.")]
        numbers = [name.rsplit(".", 1)[1] for name in drains]
        self.assertEqual(numbers, sorted(numbers))
        begins = [next(name for name in drains if name.endswith(f".{number}")) for number in sorted(set(numbers))]
        self.assertEqual(len({name.rsplit(".", 1)[0] for name in begins}), len(begins))
        self.assertGreater(len(set(name.split(".")[2] for name in drains)), 3)

    def test_all_sizes_know_all_measures(self):
        for size in ("quick", "full", "smoke"):
            self.assertTrue(list(bench.Bench(size, "none").cells()))

    def test_a_workload_may_have_settings_of_its_own(self):
        quick = bench.Bench("quick", "none")
        self.assertEqual(quick.settings_of("transform", "drain"), {**quick.settings_of("action", "drain"), "repeat": 1})

    def test_each_output_is_checked_by_the_counts_that_the_workload_names(self):
        quick = bench.Bench("quick", "none")
        quick.servers = FakeServers()
        cell = next(cell for cell in quick.cells() if cell.workload == "transform" and cell.peer == "forebay")
        run = Run(quick, cell)
        made = {"records": 20, "page_view": 3, "click": 2, "search": 1, "add_to_cart": 4, "purchase": 5, "refund": 1, "login": 1, "signup": 0,
                "heartbeat": 2, "processed": 19, "rejected": 1, "duplicate": 0}
        self.assertEqual([count for _, count in run.expected(made).items()], [6, 4, 6, 1, 1])
        self.assertEqual(run.expected_first(together(made, made)), 12)

    def test_the_job_of_flights_is_the_one_of_the_example(self):
        pipelines = [(places.ROOT / job).read_text().split("  pipeline:\n")[1] for job in ("bench/workloads/flights/job.yaml", "examples/flights/job.yaml")]
        self.assertEqual(*pipelines)

    def test_all_that_a_workload_names_is_there(self):
        every = bench.Bench("quick", "none")
        for name, described in every.workloads.items():
            folder = places.BENCH / "workloads" / name
            self.assertTrue((folder / "job.yaml").exists() and set(described["measures"]) <= set(measures.ALL), name)
            records = described["records"]
            self.assertTrue((folder / records.get("program", records.get("value"))).exists(), name)
        for peer in every.peers.values():
            self.assertLessEqual(set(peer.workloads), set(every.workloads), peer.name)

    def test_the_manifest_gets_the_names_and_intervals_of_the_run(self):
        forebay = peers.load_all()["forebay"]
        outputs = {name: f"r1.{name}" for name in ("enriched", "updates", "rejected")}
        start = Start(id="r1", workload="action", folder=pathlib.Path("."), kafka="k:1", input="r1.events", outputs=outputs, commit_ms=20,
                      linger_ms=5, threads=2, copies=1, s3_endpoint="", s3_keys=("", ""), s3_url="", settings={"checkpoint": "7s", "shards": 3})
        text = forebay.manifest(start)
        for line in ("  name: r1\n", "topic: r1.events", "topic: r1.enriched", "topic: r1.updates", "topic: r1.rejected",
                     "  commit:\n    interval: 20ms\n", "  checkpoint:\n    interval: 7s\n", "  shards: 3\n"):
            self.assertIn(line, text)
        self.assertEqual((places.BENCH / "workloads/action/job.yaml").read_text().count("topic:"), text.count("topic: r1."))


if __name__ == "__main__":
    unittest.main()
