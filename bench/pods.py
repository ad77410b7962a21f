# SPDX-License-Identifier: Apache-2.0
"""Kiln on the Kubernetes of tests/cluster/node.sh: what a task costs through a standby pod, how soon a
pool grows, and what is lost while pods are killed."""

import os
import sys
import tempfile
import threading
import time

from measure import PROGRAMS, line, say
from servers import CLOCK_TICKS, ROOT, request, stat_of

sys.path.insert(0, os.path.join(ROOT, "tests", "cluster"))
os.environ.setdefault("KILN_BUILD", os.path.join(ROOT, "build"))

from pod_cluster import Audit, PodCluster, is_ready, kill, pods, ready  # noqa: E402
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
    language, title, source, code = entry
    cluster.template(language, min=1, max=1)
    cluster.until_ready(language, 1)
    body = bench.body(language, code)
    bench.load(cluster, body, bench.seconds(3), 1)
    time.sleep(3)  # what follows the pod's start and its label
    say(f"\n{title}")
    result = {"floor": bench.floor(language, source, code)}
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


def burst(cluster):
    """Tasks that sleep take all slots that there are and ten more pods' worth: from the first submission
    until each of ten new pods runs one."""
    cluster.template("python", min=1, max=100)
    cluster.until_ready("python", 1)
    time.sleep(5)
    before, made = set(ready("python")), set()
    start = time.monotonic()
    tasks = [request(cluster.ports[0], "POST", "/submit", {
        "language": "python", "code": "import time; time.sleep(20)", "limits": {"wall_ms": 60000}})[1]["task_id"]
        for _ in range(BURST + 1)]
    serving, told = set(), {"ready_s": None, "serving_s": None}
    while time.monotonic() - start < 60 and told["serving_s"] is None:
        there = pods("python")
        made |= {p["metadata"]["name"] for p in there}
        if told["ready_s"] is None and len([p for p in there if is_ready(p)]) >= BURST + 1:
            told["ready_s"] = time.monotonic() - start
        states = [request(cluster.ports[0], "GET", f"/result/{task}")[1] for task in tasks]
        serving = {s["pod"] for s in states if s["status"] == "running"}
        if len(serving) >= BURST + 1:
            told["serving_s"] = time.monotonic() - start
        time.sleep(0.05)
    for task in tasks:
        request(cluster.ports[0], "DELETE", f"/tasks/{task}")
    time.sleep(3)
    made |= {p["metadata"]["name"] for p in pods("python")}
    told |= {"made": len(made - before), "needed": BURST, "serving": len(serving)}
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
        cluster = Loaded(directory, apis=1, schedulers=1, config=["--lease-ms=3s"])
        try:
            cluster.wait_ready()
            cluster.no_pods()
            say(f"\n  {'':22} {'p50 ms':>9} {'p95 ms':>9} {'p99 ms':>9} {'per second':>10}"
                f" {'CPU ms':>9} {'errors':>7}")
            for entry in PROGRAMS[:2]:
                report[entry[0]] = light(bench, cluster, entry)
            report["burst"] = burst(cluster)
            say(f"\nA burst for {BURST} more pods: {report['burst']}")
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
