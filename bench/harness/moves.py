"""How late records become when shards change hands: a planned move, a node that is lost, an upgrade of the job.

All is real: two nodes with kubelets and containerd, the workers' own image, Kafka and S3. The workload is `action`, first as a backlog in which every user comes
once, so that the state has its size, then at a fixed rate. Each record carries the time at which it was due; a reader of committed records tells how late
each was. What a move costs is the worst of these around it.
"""

import json
import os
import pathlib
import subprocess
import time
import types

from . import load, peers, places
from .kubectl import called, kubectl, once
from .processes import BenchError, await_true, folder_bytes
from .servers import BUCKET, make_bucket

JOB = "moves"
SHARDS = 4
SYSTEM = "forebay-system"
PATIENCE_SECONDS = 900
# Between two events; and before the first, for what is committed late at the start.
CALM_SECONDS = 20
# Two checkpoints and what they take: then all that was processed lies in the object store.
SAVED_SECONDS = 30
# The reader ends when nothing comes for so long: longer than any shard may be away.
SILENCE_SECONDS = 30

# What it must reach (issue 5), in milliseconds.
EVENTS = {
    "move": ("planned moves of two shards, one after another (a worker is added)", 1_000),
    "loss": ("a node lost with its worker, by one SIGKILL", 10_000),
    "upgrade": ("upgrade of the job: savepoint, canary, switch", 5_000),
}


def measure(users, rate):
    """Needs root, KUBECONFIG of the cluster of e2e/stack with the image of this build, its network, and servers that its pods reach."""
    servers = types.SimpleNamespace(kafka=os.environ["FOREBAY_TEST_KAFKA"])
    install()
    fill(servers, users)
    begun = time.monotonic()
    apply(servers)
    whole(1)
    await_true("an input that is drained", PATIENCE_SECONDS, lambda: job()["status"].get("lagRecords") == 0, every=1)
    drained = time.monotonic() - begun
    time.sleep(SAVED_SECONDS)
    result = {"users": users, "rate": rate, "shards": SHARDS, "seconds_to_drain": round(drained, 1), "store_bytes": store_bytes()}
    generator = load.Background(servers, "generate", "--workload", places.BENCH / "workloads" / "action", "--topic", f"{JOB}.events", "--records", rate * 3600,
                                "--rate", rate, "--ids", users, "--no-duplicates", "--seed", 2)
    from_us = now_us()
    reader = load.Background(servers, "latency", "--topic", f"{JOB}.enriched", "--from-end", "--from-us", from_us, "--patience-seconds", SILENCE_SECONDS)
    try:
        time.sleep(CALM_SECONDS)
        events = {}
        for name, happen in {"move": move, "loss": lose, "upgrade": upgrade}.items():
            at = now_us()
            more = happen()
            events[name] = {"from_s": (at - from_us) / 1e6, "until_s": (now_us() - from_us) / 1e6, **more}
            time.sleep(CALM_SECONDS)
    finally:
        generator.stop()
    seen = reader.result()
    return {**result, "events": {name: {**event, **around(seen["seconds"], event)} for name, event in events.items()},
            "calm": calm(seen["seconds"], events), "seconds": seen["seconds"]}


def install():
    kubectl("apply", "--server-side", "--force-conflicts", "-k", places.ROOT / "kustomize" / "base")
    kubectl("wait", "--for=condition=Established", "crd/ingestionjobs.forebay.dev", "crd/ingestionsavepoints.forebay.dev", "--timeout=60s")
    kubectl("-n", SYSTEM, "rollout", "status", "deployment/forebay-operator", "--timeout=120s")


def fill(servers, users):
    make_bucket(os.environ["FOREBAY_TEST_S3"], keys())
    load.call(servers, "create", *(f"{JOB}.{name}:12" for name in ("events", "enriched", "updates", "rejected")))
    load.call(servers, "generate", "--workload", places.BENCH / "workloads" / "action", "--topic", f"{JOB}.events", "--records", users, "--ids", users, "--each-first",
              "--no-duplicates")


def apply(servers):
    key, secret = keys()
    kubectl("apply", "-f", "-", stdin=json.dumps({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "object-store", "namespace": "default"},
        "stringData": {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret}}))
    kubectl("apply", "-f", "-", stdin=manifest(servers.kafka, os.environ["FOREBAY_TEST_S3"]))


def manifest(kafka, s3):
    """The workload's own job, with what `forebay run` is told on its command line."""
    start = peers.Start(id=JOB, workload="action", folder=pathlib.Path("."), kafka=kafka, input=f"{JOB}.events",
                        outputs={name: f"{JOB}.{name}" for name in ("enriched", "updates", "rejected")}, copies=1, commit_ms=100, linger_ms=5, threads=2,
                        s3_endpoint=s3, s3_keys=("", ""), s3_url="", settings={"checkpoint": "10s", "shards": SHARDS})
    added = (f"spec:\n  upgrade: {{observe: 5s}}\n  kafka: {{bootstrapServers: \"{kafka}\"}}\n"
             f"  state: {{store: {{s3: {{bucket: {BUCKET}, prefix: {JOB}, endpoint: \"{s3}\", region: us-east-1, pathStyle: true}}}}}}\n"
             "  workers:\n    replicas: 1\n    envFrom: [{secretRef: {name: object-store}}]\n"
             "    resources: {requests: {cpu: 500m, memory: 512Mi}, limits: {memory: 1Gi}}\n")
    return once(peers.load_all()["forebay"].manifest(start), "spec:\n", added)


def move():
    """A second worker gets half of the shards, one at a time."""
    kubectl("scale", "ingestionjob", JOB, "--replicas=2")
    whole(2)
    return {}


def lose():
    """The node of the worker that does not share one with the operator; it comes back when the shards run elsewhere."""
    home = kubectl("-n", SYSTEM, "get", "pods", "-l", "app.kubernetes.io/component=operator", "-o", "jsonpath={.items[0].spec.nodeName}")
    pods = json.loads(kubectl("get", "pods", "-l", f"forebay.dev/job={JOB}", "-o", "json"))["items"]
    lost = next((pod for pod in pods if pod["spec"]["nodeName"] != home), None)
    if lost is None:
        raise BenchError(f"all workers are on {home}, beside the operator")
    node = lost["spec"]["nodeName"]
    volumes = pathlib.Path(os.environ["FOREBAY_KUBERNETES_RUN"]) / node / "kubelet" / "pods" / lost["metadata"]["uid"] / "volumes"
    size = folder_bytes(volumes / "kubernetes.io~empty-dir")
    killed = now_us()
    cluster("node-kill", node)
    await_true("all shards run elsewhere", PATIENCE_SECONDS, lambda: runs_without(lost["metadata"]["name"]))
    elsewhere = (now_us() - killed) / 1e6
    cluster("node-up", node)
    kubectl("wait", "--for=condition=Ready", f"node/{node}", "--timeout=120s")
    whole(2)
    return {"state_bytes_on_disk": size, "seconds_until_all_run": round(elsewhere, 1)}


def upgrade():
    """The pipeline changes."""
    before = job()["status"]["revision"]
    patch = [{"op": "replace", "path": "/spec/pipeline/4/enrich/fields", "value": ["last_seen", "total"]}]
    kubectl("patch", "ingestionjob", JOB, "--type=json", "-p", json.dumps(patch))
    await_true("a revision that is in force", PATIENCE_SECONDS, lambda: job()["status"]["revision"] != before, every=0.5)
    whole(2)
    return {}


def whole(workers):
    """Waits until so many workers, and no others, run the same number of shards each, all of them, and no change is under way."""
    def is_whole():
        look = looked()
        held = sorted(len([shard for shard in worker["shards"] if shard["phase"] == "running"]) for worker in look["workers"])
        return held == [SHARDS // workers] * workers and look["change"]["stage"] in ("first", "steady") and job()["status"].get("phase") == "Running"

    await_true(f"{workers} workers that run all shards", PATIENCE_SECONDS, is_whole, every=0.5)


def runs_without(pod):
    held = {shard["shard"] for worker in looked()["workers"] if worker["pod"] != pod for shard in worker["shards"] if shard["phase"] == "running"}
    return len(held) == SHARDS


def looked():
    """What the operator saw last, by the plugin of this build; empty while it cannot be asked."""
    plugin = places.FOREBAY.parent / "kubectl-forebay"
    try:
        return json.loads(called([plugin, "plan", JOB, "-o", "json"]))
    except BenchError:
        return {"workers": [], "change": {"stage": ""}}


def job():
    return json.loads(kubectl("get", "ingestionjob", JOB, "-o", "json"))


def around(seconds, event):
    """The latest records of those that were due while it happened, or a moment before."""
    meant = [second for second in seconds if event["from_s"] - 2 <= second[0] <= event["until_s"] + 1]
    return {"latest_ms": max(second[4] for second in meant), "p50_ms": sorted(second[2] for second in meant)[len(meant) // 2]}


def calm(seconds, events):
    """The same of those that were due while nothing happened; the first seconds left out."""
    def is_calm(second):
        return second[0] >= 5 and not any(event["from_s"] - 2 <= second[0] <= event["until_s"] + 5 for event in events.values())

    meant = [second for second in seconds if is_calm(second)]
    return {"latest_ms": max(second[4] for second in meant), "p50_ms": sorted(second[2] for second in meant)[len(meant) // 2]} if meant else {}


def table(cell):
    """A run as a table."""
    result = cell["result"]
    lost = result["events"]["loss"]
    lines = [
        f"## Shards that change hands, {result['users'] / 1e6:g} million users", "",
        f"{result['shards']} shards, {result['rate']:,} records a second; {lost['state_bytes_on_disk'] / 1e6:.0f} MB of databases lay on the disk of the pod that was lost, half of "
        f"the state. While nothing happens: p50 {result['calm'].get('p50_ms', 0):.0f} ms, latest record {result['calm'].get('latest_ms', 0):.0f} ms.", "",
        "| | latest record | must | | p50 meanwhile | took |", "|---|---|---|---|---|---|",
    ]
    for name, (title, must_ms) in EVENTS.items():
        event = result["events"][name]
        kept = "yes" if event["latest_ms"] < must_ms else "**no**"
        lines.append(f"| {title} | {event['latest_ms'] / 1000:.2f} s | < {must_ms / 1000:g} s | {kept} | {event['p50_ms']:.0f} ms | {event['until_s'] - event['from_s']:.0f} s |")
    lines.append("")
    lines.append(f"From the loss of the node until the operator saw all shards run elsewhere: {lost['seconds_until_all_run']} s, of which 5 s are `workerTimeout`.")
    return "\n".join(lines)


def cluster(command, node):
    subprocess.run([os.environ["FOREBAY_KUBERNETES"], command, node.removeprefix("n")], check=True, stdout=subprocess.DEVNULL)


def store_bytes():
    """What the S3 server has on its disk."""
    return folder_bytes(pathlib.Path(os.environ["FOREBAY_STACK_RUN"]) / "s3")


def keys():
    return os.environ["FOREBAY_TEST_S3_ACCESS_KEY"], os.environ["FOREBAY_TEST_S3_SECRET_KEY"]


def now_us():
    return time.time_ns() // 1000
