# SPDX-License-Identifier: Apache-2.0
"""A load of mixed tasks goes on while parts of the cluster fail. In the end every task that was accepted
has one result, and the right one."""

import time

import pytest

from faults import kill_process
from harness import wait_until
from pod_cluster import NODE, api_answers, apply, get, kill, kubectl, node, pods, ready


def busy_pods():
    return [p["metadata"]["name"] for p in pods() if p["metadata"]["labels"].get("kiln/state") == "busy"]


def test_pods_are_killed(cluster, under_load):
    """The ones that run tasks now, by what the schedulers say."""
    def fault():
        for _ in range(3):
            for pool in ("bash", "python", "c"):
                kill(ready(pool)[0])
            time.sleep(2)
    under_load(fault)
    assert len(pods()) >= 6


@pytest.mark.long
def test_processes_in_pods_are_killed(under_load):
    """The runner ends without a word to anybody: the kubelet is the first who hears of it."""
    def fault():
        for _ in range(2):
            node("exec", "sh", "-c", "pkill -KILL -n kiln-runner")
            time.sleep(2)
    under_load(fault)


@pytest.mark.long
def test_drained_node(cluster, under_load):
    """A pod with a task is waited for; what is queued meanwhile waits for the node to be back."""
    def fault():
        kubectl("drain", NODE, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=90s",
                "--pod-selector=kiln/pool", check=False)
        time.sleep(2)
        kubectl("uncordon", NODE)
        cluster.until_ready("bash", 1)
    try:
        under_load(fault)
    finally:
        kubectl("uncordon", NODE)


@pytest.mark.parametrize("name", [
    "apiserver", *(pytest.param(name, marks=pytest.mark.long) for name in ("etcd", "kubelet", "containerd"))])
def test_part_of_the_node_is_killed(under_load, name):
    def fault():
        node("kill", name)
        time.sleep(1)
        wait_until(api_answers, 60, every=0.2, what="the API server")
    under_load(fault)


@pytest.mark.long
def test_api_server_is_away(cluster, under_load):
    """Schedulers work on with the pods that they know, and say that they are well."""
    def fault():
        node("hold", "apiserver")
        ids = []
        try:
            for i in range(20):
                task = cluster.client().run("python", f"print({i})")
                assert task["stdout"] == f"{i}\n"
                ids.append(task["task_id"])
            assert {s.get("/readyz").status for s in cluster.schedulers} == {200}
            time.sleep(15)
        finally:
            node("release", "apiserver")
            wait_until(api_answers, 60, every=0.2, what="the API server")
        return ids
    under_load(fault)


def test_leader_is_killed(cluster, under_load):
    def fault():
        kill_process(cluster.leading())
        kill(ready("python")[0])
        cluster.leading()
    under_load(fault)


@pytest.mark.long
def test_lease_is_deleted(cluster, under_load):
    def fault():
        kubectl("delete", "lease", "kiln-pods")
        cluster.leading()
    under_load(fault)


@pytest.mark.long
def test_template_changes_under_load(cluster, under_load):
    def fault():
        before = set(ready("python"))

        def change(template):
            template["template"]["metadata"].setdefault("annotations", {})["example/revision"] = "2"
        cluster.template("python", change, min=2, max=4)
        wait_until(lambda: not before & set(ready("python")) and len(ready("python")) >= 2, 120, every=0.2,
                   what="the roll-out")
    under_load(fault)


def filler(cpu):
    """Takes nearly all of the node: of what a scheduler of Kubernetes counts, not of its work."""
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "filler", "namespace": "default"},
            "spec": {"terminationGracePeriodSeconds": 1, "containers": [{
                "name": "filler", "image": "localhost/pause:1", "imagePullPolicy": "Never",
                "resources": {"requests": {"cpu": f"{cpu}m"}}}]}}


def free_milli():
    total = get("nodes")[0]["status"]["allocatable"]["cpu"]
    milli = int(total[:-1]) if total.endswith("m") else 1000 * int(total)
    for pod in get("pods", "-A"):
        if pod["status"]["phase"] in ("Succeeded", "Failed"):
            continue
        for container in pod["spec"]["containers"]:
            asked = container.get("resources", {}).get("requests", {}).get("cpu", "0")
            milli -= int(asked[:-1]) if asked.endswith("m") else 1000 * int(asked)
    return milli


@pytest.mark.long
def test_full_node(cluster, under_load):
    """Pods that have no room wait for it; they are neither made again and again nor missed by tasks."""
    def fault():
        apply(filler(free_milli() - 10))
        try:
            kubectl("wait", "pod/filler", "--for=condition=Ready", "--timeout=30s", namespace="default")
            for pool in ("python", "bash"):
                cluster.template(pool, min=4, max=6)
            time.sleep(10)
            names = {p["metadata"]["name"] for p in pods() if p["status"]["phase"] == "Pending"}
            assert names, "the node is full"
            time.sleep(10)
            again = {p["metadata"]["name"] for p in pods() if p["status"]["phase"] == "Pending"}
            assert len(again - names) <= 2, (names, again)
        finally:
            kubectl("delete", "pod", "filler", "--grace-period=0", "--force", namespace="default")
        cluster.until_ready("python", 4)
    under_load(fault)


@pytest.mark.long
def test_memory_of_a_pod_is_exceeded(cluster, under_load):
    """A pod that is smaller than what tasks may have: a program that takes it all is told so, or tried
    again until it has failed; what others run is not touched."""
    greedy = "x = []\nwhile True: x.append(bytearray(1 << 20))"

    def small(template):
        template["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"] = "128Mi"

    def fault():
        cluster.template("python", small, min=2, max=4)
        tasks = [cluster.client().submit("python", greedy, limits={"memory_bytes": 1 << 30})
                 for _ in range(3)]
        for task in tasks:
            done = cluster.client().wait(task, 120)
            assert (done["status"], done["outcome"]) in (("done", "memory_limit"), ("failed", None)), done
        return tasks
    under_load(fault)
