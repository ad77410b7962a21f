# SPDX-License-Identifier: Apache-2.0
"""Kiln on the Kubernetes of tests/cluster/node.sh: what a task costs through a standby pod, how soon a
pool grows, and what is lost while pods are killed."""

import os
import sys
import tempfile
import threading
import time

from measure import heading, line, say
from programs import PROGRAMS
from servers import CLOCK_TICKS, ROOT, request, stat_of

sys.path.insert(0, os.path.join(ROOT, "tests", "cluster"))
os.environ.setdefault("KILN_BUILD", os.path.join(ROOT, "build"))

from pod_cluster import NAMESPACE_FOLDER, Audit, PodCluster, kill, kubectl, pods, ready  # noqa: E402
from load import sql  # noqa: E402

IMAGES = ("runner", "gcc", "python")
LIGHT_RATE = 20  # requests per second: a few per cent of what the machine can do
MANY_TASKS = 10_000
KILL_EVERY_S = 2
BURST = 10


def inside():
    """Whether this process is in the network of a node, with the servers that Kiln needs."""
    return "KILN_TEST_POSTGRES_URL" in os.environ and "KUBECONFIG" in os.environ


def enter(argv):
    """Becomes the same program there; what it needs is started before and ended after."""
    run_sh = os.path.join(ROOT, "tests", "cluster", "run.sh")
    os.execv(run_sh, [run_sh, *IMAGES, "--", sys.executable, *argv])


class Loaded(PodCluster):
    """As the load generator knows a server. CPU is that of the processes beside the node."""

    @property
    def ports(self):
        return [api.port for api in self.apis]

    def cpu_ms(self):
        ticks = 0
        for one in self.apis + self.schedulers:
            ticks += sum(int(field) for field in stat_of(one.process.pid)[1][11:13])
        return ticks * 1000 / CLOCK_TICKS


def light(bench, cluster, entry):
    """A program bare and through a pod, which stands ready; and what the API server was asked meanwhile."""
    language = entry.language
    cluster.template(language, min=1, max=1)
    cluster.until_ready(language, 1)
    body = bench.body(language, entry.code)
    bench.load(cluster, body, bench.seconds(3), 1)
    time.sleep(3)  # what follows the pod's start and its label
    say(f"\n{entry.title}")
    result = {"floor": bench.floor(entry)}
    line("bare", result["floor"])
    audit = Audit()
    result["one"] = bench.load(cluster, body, bench.seconds(10), 1)
    line("1 client", result["one"])
    result["paced"] = bench.load(cluster, body, bench.seconds(20), 16, rate=LIGHT_RATE)
    line(f"paced {LIGHT_RATE}/s", result["paced"])
    calls = [one for one in audit.requests() if one[1] != "leases"]
    result["calls"], result["tasks"] = calls, result["one"]["n"] + result["paced"]["n"]
    say(f"  {len(calls)} requests to the API server for {result['tasks']} tasks: {calls}")
    cluster.no_pods()
    return result


def sleeper(cluster):
    """A task that holds its slot for twenty seconds."""
    return request(cluster.ports[0], "POST", "/submit", {
        "language": "python", "code": "import time; time.sleep(20)", "limits": {"wall_ms": 60000}})[1]["task_id"]


def burst(cluster):
    """Tasks that sleep take all slots that there are and ten more pods' worth: from the first submission
    until each of ten new pods runs one. (A pod has one slot, so what runs is in as many pods.) The pool
    knows how long its tasks take, from two that came before: a pool that does not gives them to the pods
    that are there until it has seen that they stay."""
    cluster.template("python", min=1, max=100)
    cluster.until_ready("python", 1)
    for _ in range(2):
        task = sleeper(cluster)
        request(cluster.ports[0], "GET", f"/result/{task}?wait=30")
    before = {p["metadata"]["name"] for p in pods("python")}
    start, serving_s = time.monotonic(), None
    tasks = [sleeper(cluster) for _ in range(BURST + len(before))]
    waiting = list(tasks)
    # A kubectl every now and then would cost what two pods do, and all results at once what half a one does.
    while time.monotonic() - start < 60 and serving_s is None:
        while waiting and request(cluster.ports[0], "GET", f"/result/{waiting[0]}")[1]["status"] == "running":
            waiting.pop(0)  # for twenty seconds
        if not waiting:
            serving_s = time.monotonic() - start
        time.sleep(0.05)
    time.sleep(3)
    made = {p["metadata"]["name"] for p in pods("python")} - before
    for task in tasks:
        request(cluster.ports[0], "DELETE", f"/tasks/{task}")
    told = {"before": len(before), "needed": BURST, "made": len(made), "serving_s": serving_s}
    cluster.no_pods()
    return told


def count_results(cluster):
    return int(sql(cluster, "SELECT count(*) FROM result")[0][0])


def survive(cluster, tasks):
    """Tasks one after the other by 8 clients, each printing its own number, while every two seconds a
    pod is killed."""
    cluster.template("python", min=4, max=6)
    cluster.until_ready("python", 4)
    lock, numbers, wrong, attempts = threading.Lock(), iter(range(tasks)), [], {}

    def client(port):
        while True:
            with lock:
                i = next(numbers, None)
            if i is None:
                return
            status, task = request(port, "POST", "/submit", {"language": "python", "code": f"print({i})"})
            while status in (200, 201) and task["status"] in ("queued", "running"):
                status, task = request(port, "GET", f"/result/{task['task_id']}?wait=30")
            with lock:
                if status != 200 or task.get("stdout") != f"{i}\n":
                    wrong.append(task)
                attempts[task.get("attempt")] = attempts.get(task.get("attempt"), 0) + 1
    threads = [threading.Thread(target=client, args=(cluster.ports[0],)) for _ in range(8)]
    before = count_results(cluster)
    start, killed = time.monotonic(), 0
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        time.sleep(KILL_EVERY_S)
        names = ready("python")
        if names:
            kill(names[killed % len(names)])
            killed += 1
    told = {"tasks": tasks, "seconds": time.monotonic() - start, "killed": killed, "wrong": len(wrong),
            "first_wrong": wrong[:1], "attempts": attempts}
    told["rows"] = count_results(cluster) - before
    cluster.no_pods()
    return told


def run(bench):
    report = {}
    with tempfile.TemporaryDirectory(prefix="kiln-bench-") as directory:
        os.chmod(directory, 0o755)
        kubectl("apply", "-k", NAMESPACE_FOLDER)
        cluster = Loaded(directory, apis=1, schedulers=1, config=["--lease-ms=3s"])
        try:
            cluster.wait_ready()
            cluster.no_pods()
            report["burst"] = burst(cluster)
            say(f"\nA burst for {BURST} more pods: {report['burst']}")
            heading()
            for entry in PROGRAMS[:2]:
                report[entry.key] = light(bench, cluster, entry)
            report["survive"] = survive(cluster, max(100, int(MANY_TASKS * bench.scale)))
            say(f"\nA pod killed every {KILL_EVERY_S} s: {report['survive']}")
        finally:
            cluster.close()
    return report


def figures(report):
    """The project's own targets for pods, on this machine in this run."""
    c, python, grown, killed = (report[key] for key in ("c", "python", "burst", "survive"))
    yield "C hello through a pod, light load, p50", c["paced"]["p50_ms"], "ms", "<=", 8
    yield "C hello through a pod, light load, p99", c["paced"]["p99_ms"], "ms", "<=", 30
    yield ("Python hello over the bare floor, light load, p50",
           python["paced"]["p50_ms"] - python["floor"]["p50_ms"], "ms", "<=", 10)
    yield ("requests to the API server per 100 tasks",
           100 * (len(c["calls"]) + len(python["calls"])) / (c["tasks"] + python["tasks"]), "", "<=", 1)
    yield (f"a burst for {BURST} more pods: all serve",
           float("inf") if grown["serving_s"] is None else grown["serving_s"], "s", "<=", 5)
    yield "pods made for it", grown["made"], "", "<=", BURST * 1.1
    yield f"{killed['tasks']} tasks, {killed['killed']} pods killed: wrong or lost", killed["wrong"], "", "<=", 0
    yield "and results beside one for each", killed["rows"] - killed["tasks"], "", "<=", 0
