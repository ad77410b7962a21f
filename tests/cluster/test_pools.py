# SPDX-License-Identifier: Apache-2.0
"""What an operator and a user of a cluster see: manifests, rights, tasks of every pool, a pool's days."""

import json
import time

import pytest
import yaml

from harness import wait_until
from pod_cluster import (Audit, LOAD_POOLS, NAMESPACE, apply, get, kubectl, kustomizations, pods, ready,
                         shipped_pools)

# Of each language a program and what it prints.
HELLO = {
    "bash": "echo $((6 * 7))",
    "c": '#include <stdio.h>\nint main(void) { printf("%d\\n", 6 * 7); }',
    "cpp": "#include <iostream>\nint main() { std::cout << 6 * 7 << std::endl; }",
    "go": 'package main\nimport "fmt"\nfunc main() { fmt.Println(6 * 7) }',
    "java": "class Main { public static void main(String[] a) { System.out.println(6 * 7); } }",
    "javascript": "console.log(6 * 7)",
    "lua": "print(6 * 7)",
    "perl": 'print 6 * 7, "\\n";',
    "php": '<?php echo 6 * 7, "\\n";',
    "python": "print(6 * 7)",
    "ruby": "puts 6 * 7",
}


def languages_of(template):
    notes = template["metadata"]["annotations"]
    return notes.get("kiln/languages", template["metadata"]["name"]).split(",")


@pytest.mark.parametrize("folder", kustomizations(), ids=lambda path: path.partition("kubernetes/")[2])
def test_manifests_are_accepted(namespace, folder):
    text = kubectl("kustomize", folder).stdout
    # A dry run makes no namespace for what is to be in it.
    for one in yaml.safe_load_all(text):
        if one["kind"] == "Namespace":
            apply(one)
    kubectl("apply", "--dry-run=server", "-f", "-", namespace=None, text=text)


def may(verb, resource, group="", name="", where=NAMESPACE):
    """Whether a scheduler may."""
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
              "spec": {"resourceAttributes": {"namespace": where, "verb": verb, "group": group,
                                              "resource": resource, "name": name}}}
    # Validated without: that asks for what only an administrator may see.
    done = kubectl("create", "-f", "-", "-o", "json", "--validate=false",
                   f"--as=system:serviceaccount:{NAMESPACE}:kiln-scheduler",
                   f"--as-group=system:serviceaccounts:{NAMESPACE}",
                   "--as-group=system:serviceaccounts", "--as-group=system:authenticated",
                   text=json.dumps(review))
    return json.loads(done.stdout)["status"]["allowed"]


def test_role_is_enough_and_no_more(namespace):
    for verb in ("list", "watch", "create", "patch", "delete"):
        assert may(verb, "pods")
        assert not may(verb, "pods", where="default")
    for verb in ("get", "update"):
        assert may(verb, "leases", "coordination.k8s.io", "kiln-pods")
        assert not may(verb, "leases", "coordination.k8s.io", "another")
    assert may("list", "podtemplates") and may("watch", "podtemplates")
    for verb, resource, group in (
            ("get", "secrets", ""), ("list", "secrets", ""), ("get", "configmaps", ""),
            ("create", "podtemplates", ""), ("update", "podtemplates", ""), ("create", "pods/exec", ""),
            ("get", "pods/log", ""), ("create", "pods/eviction", ""), ("deletecollection", "pods", ""),
            ("create", "deployments", "apps"), ("create", "serviceaccounts/token", ""),
            ("update", "roles", "rbac.authorization.k8s.io")):
        assert not may(verb, resource, group), (verb, resource)


def first_task(client, language):
    """Of a pool whose template was just made: the API hears of it a moment later."""
    def submit():
        answer = client.post("/submit", {"language": language, "code": HELLO[language]})
        assert answer.status in (201, 422), answer
        return answer.json.get("task_id")
    return wait_until(submit, 20, every=0.2, what=f"{language} is known")


@pytest.mark.parametrize("pool", [
    pool if pool in LOAD_POOLS else pytest.param(pool, marks=pytest.mark.long) for pool in sorted(shipped_pools())])
def test_tasks_of_every_pool(empty, pool):
    """From nothing: the first task makes the pod that runs it."""
    empty.template(pool, min=0, max=2)
    for language in languages_of(shipped_pools()[pool]):
        task = empty.client().wait(first_task(empty.client(), language), 90)
        assert (task["outcome"], task["stdout"], task["stderr"]) == ("ok", "42\n", ""), task
        assert task["pod"].startswith(f"kiln-{pool}-"), task
        assert task["isolation"]["seccomp"] and task["isolation"]["namespaces"], task


def test_no_call_on_the_path(empty):
    """A task that a pod stands ready for costs no request to the API server."""
    empty.template("python", min=2, max=2)
    empty.until_ready("python", 2)
    client = empty.client()
    client.run("python", "print(1)")
    time.sleep(3)  # longer than what is settled after a change takes
    audit, tasks = Audit(), 200
    for i in range(tasks):
        assert client.run("python", f"print({i})")["stdout"] == f"{i}\n"
    calls = [one for one in audit.requests() if one[1] != "leases"]
    # A label once it is busy for long, or the end of a watch; not one for each task.
    assert len(calls) <= 4, calls


def evict(name):
    """The status code of an eviction."""
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
    done = kubectl("create", "--raw", f"/api/v1/namespaces/{NAMESPACE}/pods/{name}/eviction", "-f", "-",
                   check=False, text=json.dumps(body))
    if done.returncode == 0:
        return 201
    return 429 if "disruption budget" in done.stderr else done.stderr


def sleeping(cluster, seconds):
    return cluster.client().submit("python", f"import time; time.sleep({seconds}); print('slept')",
                                   limits={"wall_ms": 120000})


@pytest.mark.long
def test_days_of_a_pool(empty):
    """Minimum, burst, labels and evictions, replacement, a roll-out around a busy pod, the end."""
    empty.template("python", min=2, max=6)
    empty.until_ready("python", 2)
    # Long enough that a pod for each is worth it.
    many = [sleeping(empty, 20) for _ in range(6)]
    empty.until_ready("python", 6)
    assert [empty.client().wait(t, 60)["stdout"] for t in many] == ["slept\n"] * 6

    wait_until(lambda: not empty.busy(), 60, every=0.2, what="word that they ended")
    task = sleeping(empty, 25)
    empty.client().until_running(task)
    busy, = wait_until(empty.busy, 10, every=0.2, what="a pod that runs it")
    # Others may still have the label of the task before; this one may not have it yet.
    wait_until(lambda: busy in [p["metadata"]["name"] for p in pods("python")
                                if p["metadata"]["labels"].get("kiln/state") == "busy"], 60, every=0.2,
               what="the label")
    wait_until(lambda: evict(busy) == 429, 20, every=0.5, what="the disruption budget")
    idle, unwanted = [name for name in ready("python") if name != busy][:2]
    wait_until(lambda: evict(idle) == 201, 40, every=0.5, what="an eviction")
    wait_until(lambda: idle not in ready("python") and len(ready("python")) >= 2, 60, every=0.2,
               what="another for it")
    kubectl("annotate", "pod", unwanted, "kiln/replace=", check=False)
    wait_until(lambda: unwanted not in ready("python"), 60, every=0.2, what="the unwanted one gone")

    before = set(ready("python"))
    assert busy in before

    def change(template):
        template["template"]["metadata"].setdefault("annotations", {})["example/revision"] = "2"
    empty.template("python", change, min=2, max=6)
    wait_until(lambda: len(set(ready("python")) - before) >= 1, 90, every=0.2, what="a new pod")
    done = empty.client().wait(task, 90)
    assert (done["stdout"], done["attempt"], done["pod"]) == ("slept\n", 1, busy)
    wait_until(lambda: not before & set(ready("python")) and len(ready("python")) >= 2, 120, every=0.2,
               what="all of the roll-out")

    kubectl("delete", "podtemplate", "python", "--cascade=orphan")
    wait_until(lambda: not pods(), 90, every=0.2, what="no pods without a template")
    for scheduler in empty.schedulers:
        assert "answered 403" not in scheduler.log_text()


@pytest.mark.long
def test_templates_are_told_apart_from_others(empty):
    """A template that is none of Kiln's makes no pods."""
    apply({"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "other"},
           "template": {"metadata": {"labels": {"app": "x"}},
                        "spec": {"containers": [{"name": "x", "image": "localhost/pause:1"}]}}})
    empty.template("python", min=1, max=1)
    empty.until_ready("python", 1)
    assert {p["metadata"]["labels"]["kiln/pool"] for p in pods()} == {"python"}
    assert len(get("pods")) == len(pods())
