# SPDX-License-Identifier: Apache-2.0
"""A whole server whose runners are pods: the API server is the tests' own (tests/integration/
fake_kube.py), its kubelet starts real runners. What tasks get is what they get anywhere."""

import os
import secrets
import shutil
import subprocess
import sys
import threading
import time

import pytest

import harness

sys.path.insert(0, os.path.join(harness.ROOT, "tests", "integration"))
from fake_kube import Kube  # noqa: E402
from fake_runners import Runners  # noqa: E402
import place  # noqa: E402


class Cluster(Runners):
    def __init__(self, directory):
        super().__init__(Kube(pod_port=29464), directory, harness.program, harness.clean_env(),
                         self.make_key)
        # One language: runners that start by the half dozen would look for all of them at once.
        self.languages = os.path.join(directory, "languages")
        os.mkdir(self.languages, 0o755)
        shutil.copy(os.path.join(harness.ROOT, "languages", "python.yaml"), self.languages)
        self.secret, self.keys = os.path.join(directory, "secret"), {}
        with open(os.open(self.secret, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="ascii") as f:
            f.write(secrets.token_hex(32) + "\n")

    def make_key(self, pool):
        if pool not in self.keys:
            self.keys[pool] = os.path.join(self.directory, pool + ".key")
            subprocess.run([harness.program("kiln"), "runner-key", pool, "--secret-file", self.secret,
                            "--out", self.keys[pool]], check=True, env=harness.clean_env())
        return self.keys[pool]


@pytest.fixture
def cluster(scratch, request):
    directory = os.path.join(scratch, "kube-" + request.node.name)
    os.mkdir(directory, 0o755)
    return Cluster(directory)


@pytest.fixture
def serve(cluster, make_server):
    def start(**more):
        return make_server(args=[f"--pods={cluster.kube.url}",
                                 f"--cluster-secret-file={cluster.secret}"], **more)
    yield start
    cluster.close()  # before the server ends, which then looks for processes that are left


def test_task_runs_in_a_standby_pod(cluster, serve):
    cluster.kube.template("python", min=1, max=3, slots=2)
    server = serve()
    harness.wait_until(cluster.running, what="a pod")
    task = server.run("python", "print('hello')")
    assert (task["outcome"], task["stdout"]) == ("ok", "hello\n")
    assert task["pod"] == cluster.running()[0] and task["pod"].startswith("kiln-python-")


def test_pool_at_zero_takes_tasks_and_starts_cold(cluster, serve):
    cluster.kube.template("python", min=0, max=3, slots=2, idle="2s")
    server = serve()
    assert not cluster.running()
    task = server.run("python", "print('cold')")
    assert (task["outcome"], task["stdout"], task["attempt"]) == ("ok", "cold\n", 1)
    harness.wait_until(lambda: not cluster.kube.pods(), 60, what="the pool at zero again")
    assert server.run("python", "print('again')")["stdout"] == "again\n"


def test_language_without_a_pool_is_refused(cluster, serve):
    cluster.kube.template("python", min=0, max=3)
    server = serve()
    answer = server.post("/submit", {"language": "bash", "code": "echo x"})
    assert answer.status == 422 and b"bash" in answer.body


def test_backlog_makes_the_pool_grow(cluster, serve):
    cluster.kube.template("python", min=1, max=5, slots=2, drain="1s")
    server = serve()
    tasks = [server.submit("python", f"import time; time.sleep(1); print({i})") for i in range(20)]
    done = [server.wait(t) for t in tasks]
    assert [t["stdout"] for t in done] == [f"{i}\n" for i in range(20)]
    assert {t["attempt"] for t in done} == {1}
    assert 3 <= len({t["pod"] for t in done}) <= 5


def test_pods_that_are_killed_lose_no_task(cluster, serve):
    cluster.kube.template("python", min=3, max=6, slots=2, drain="1s")
    server = serve()
    harness.wait_until(lambda: len(cluster.running()) == 3, what="three pods")
    tasks = [server.submit("python", f"import time; time.sleep(0.3); print({i})") for i in range(40)]
    for _ in range(2):  # a task has three attempts
        harness.wait_until(lambda: any(server.result(t)["status"] == "running" for t in tasks),
                           what="a task that runs")
        time.sleep(0.5)
        cluster.kill(cluster.running()[0])
    done = [server.wait(t, 120) for t in tasks]
    assert [(t["status"], t["stdout"]) for t in done] == [("done", f"{i}\n") for i in range(40)]


def test_roll_out_under_load_costs_no_attempt(cluster, serve):
    cluster.kube.template("python", image="img:1", min=2, max=6, slots=2)
    server = serve()
    harness.wait_until(lambda: len(cluster.running()) == 2, what="two pods")
    before = set(cluster.running())
    results, stop = [], threading.Event()

    def load():
        while not stop.is_set():
            results.append(server.run("python", "import time; time.sleep(0.2); print('x')"))
    threads = [threading.Thread(target=load) for _ in range(3)]
    for t in threads:
        t.start()
    time.sleep(1)
    cluster.kube.template("python", image="img:2", min=2, max=6, slots=2)
    harness.wait_until(lambda: len(cluster.running()) >= 2 and not before & set(cluster.running()),
                       90, what="the new pods")
    stop.set()
    for t in threads:
        t.join()
    assert {(r["outcome"], r["stdout"], r["attempt"]) for r in results} == {("ok", "x\n", 1)}
    assert {r["pod"] for r in results} - before, "the new pods have served"


def test_pods_that_are_used_up_are_replaced_and_no_task_is_lost(cluster, serve):
    cluster.kube.template("python", min=2, max=6, slots=2, recycle_tasks=4)
    server = serve()
    tasks = [server.submit("python", f"import time; time.sleep(0.1); print({i})") for i in range(40)]
    done = [server.wait(t, 120) for t in tasks]
    assert [(t["outcome"], t["stdout"], t["attempt"]) for t in done] == \
        [("ok", f"{i}\n", 1) for i in range(40)]
    harness.wait_until(lambda: len(cluster.ended) >= 2, 30, what="pods that have ended")


def test_runner_that_ends_by_itself_loses_no_task(cluster, serve):
    cluster.more = ["--max-tasks", "3"]
    cluster.kube.template("python", min=2, max=8, slots=2)
    server = serve()
    tasks = [server.submit("python", f"print({i})") for i in range(24)]
    done = [server.wait(t, 120) for t in tasks]
    assert [(t["outcome"], t["stdout"], t["attempt"]) for t in done] == \
        [("ok", f"{i}\n", 1) for i in range(24)]
    assert len({t["pod"] for t in done}) >= 8


@pytest.mark.skipif(place.reason_not(harness.BUILD) is not None,
                    reason=str(place.reason_not(harness.BUILD)))
def test_pods_without_namespaces_are_used_once(cluster, serve, tmp_path):
    os.chmod(cluster.directory, 0o755)

    def prefix(name):
        root = tmp_path / name
        root.mkdir()
        # Its key is its user's, as a Secret's file is with fsGroup.
        for key in os.listdir(cluster.directory):
            if key.endswith("-key"):
                os.chown(os.path.join(cluster.directory, key), place.USER, place.USER)
        return place.prefix(root, harness.BUILD, net=False, more=cluster.directory)
    cluster.prefix, cluster.more = prefix, ["--isolation", "auto"]
    cluster.env = cluster.env | {"ASAN_OPTIONS": "detect_leaks=0"}
    cluster.kube.template("python", min=1, max=4, slots=1, recycle_tasks=1, key="pod")
    server = serve()
    tasks = [server.submit("python", f"print({i})") for i in range(6)]
    done = [server.wait(t, 120) for t in tasks]
    assert [(t["outcome"], t["stdout"], t["attempt"]) for t in done] == \
        [("ok", f"{i}\n", 1) for i in range(6)]
    assert {(t["isolation"]["level"], t["isolation"]["namespaces"]) for t in done} == {("pod", False)}
    assert len({t["pod"] for t in done}) == 6, "no pod ran two"


def test_key_of_one_pod_is_no_other_pods(cluster, serve):
    cluster.kube.template("python", min=2, max=2, slots=2, key="pod")
    server = serve()
    harness.wait_until(lambda: len(cluster.running()) == 2, what="two pods")
    assert server.run("python", "print(1)")["stdout"] == "1\n"
    keys = [open(os.path.join(cluster.directory, name), encoding="ascii").read()
            for name in os.listdir(cluster.directory) if name.endswith(".pod-key")]
    assert len(keys) == len(set(keys)) == 2
    assert {k.split()[1] for k in keys} == set(cluster.running())
    # Runners that have the pool's key are not talked to where each should have its own.
    cluster.key_of = lambda name, pool: cluster.key(pool)
    cluster.kill(cluster.running()[0])
    harness.wait_until(lambda: 'kiln_pool_pods{pool="python",state="lost"} 1' in
                       server.get("/metrics").body.decode(), 30, what="one that is not let in")


def test_api_server_away_does_not_stop_tasks(cluster, serve):
    cluster.kube.template("python", min=2, max=4, slots=2)
    server = serve()
    harness.wait_until(lambda: len(cluster.running()) == 2, what="two pods")
    server.run("python", "print(1)")
    cluster.kube.go_away()
    for i in range(20):
        assert server.run("python", f"print({i})")["stdout"] == f"{i}\n"
    assert server.get("/readyz").status == 200
    cluster.kube.come_back()


def test_no_call_to_the_api_server_on_the_path(cluster, serve):
    cluster.kube.template("python", min=2, max=2, slots=2)
    server = serve()
    harness.wait_until(lambda: len(cluster.running()) == 2, what="two pods")
    server.run("python", "print(1)")
    time.sleep(1)
    before = len(cluster.kube.requests)
    begun = time.monotonic()
    for _ in range(100):
        server.run("python", "pass")
    calls = [r for r in cluster.kube.requests[before:] if r[2] != "leases"]
    assert len(calls) <= 3, calls  # a label, or the end of a watch; not one for each task
    assert time.monotonic() - begun < 60


def test_metrics_of_pools(cluster, serve):
    cluster.kube.template("python", min=1, max=2, slots=2)
    server = serve()
    harness.wait_until(cluster.running, what="a pod")
    server.run("python", "print(1)")
    text = harness.wait_until(lambda: (t := server.get("/metrics").body.decode()) and
                              'kiln_pool_pods{pool="python",state="idle"} 1' in t and t,
                              10, what="the pool in the metrics")
    assert 'kiln_pool_want_pods{pool="python"} 1' in text
    assert "kiln_leader 1" in text
    assert 'kiln_pool_pod_starts_total{pool="python",result="ready"} 1' in text


@pytest.mark.release_only
def test_known_pod_takes_less_than_4_kib(cluster):
    """Of what a process knows about each pod; the buffers of a connection that is up come on top."""
    kube, n = cluster.kube, 5000
    kube.on_run = kube.on_end = None
    kube.start_s = 1e9
    kube.template("python", min=n, max=n)
    program = os.path.join(harness.BUILD, "tests", "integration", "kube-harness")

    def resident(count):
        with kube.lock:
            for i in range(count):
                name = f"kiln-python-{i}"
                kube.objects["pods"][name] = {
                    "metadata": {"name": name, "uid": f"u{i}", "resourceVersion": str(i + 1),
                                 "labels": {"kiln/pool": "python", "kiln/rev": "x"}},
                    "spec": {"nodeName": "n", "filler": "y" * 3000},
                    "status": {"phase": "Running", "podIP": f"127.8.{i // 250}.{i % 250 + 1}"}}
        with subprocess.Popen([program, "pods", kube.url, "1"], stdin=subprocess.PIPE,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            before = len(kube.seen("watch", "pods"))
            kube.wait(lambda: len(kube.seen("watch", "pods")) > before, 30, "the list")
            time.sleep(2)
            with open(f"/proc/{process.pid}/status", encoding="ascii") as f:
                kib = next(int(line.split()[1]) for line in f if line.startswith("VmRSS:"))
            process.kill()
        return kib * 1024
    small = resident(10)
    assert (resident(n) - small) / n < 4096
