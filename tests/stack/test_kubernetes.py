# SPDX-License-Identifier: Apache-2.0
"""Kiln in separate processes whose schedulers share pods: the API server is the tests' own
(tests/integration/fake_kube.py), its kubelet starts real runners."""

import json
import os
import sys
import time

import pytest

import cluster

sys.path.insert(0, os.path.join(cluster.ROOT, "tests", "integration"))
from fake_kube import Kube  # noqa: E402
from fake_runners import Runners  # noqa: E402


@pytest.fixture
def kiln(make_cluster):
    return make_cluster(runners=0, schedulers=0, apis=0)


@pytest.fixture
def pods(kiln):
    key = os.path.join(kiln.directory, "python.key")
    kiln.kiln("runner-key", "python", "--secret-file", kiln.secret_file, "--out", key)
    one = Runners(Kube(pod_port=29465), kiln.directory, cluster.program, cluster.clean_env(),
                  lambda pool: key, uid_base=720000)
    yield one
    one.close()


def start(kiln, pods, schedulers=2):
    for i in range(schedulers):
        kiln.schedulers.append(kiln.scheduler(f"kube-{i}", pods=pods.kube.url))
    kiln.apis.append(kiln.api("kube-api"))
    kiln.wait_ready()
    return kiln.client()


def described(kiln, scheduler):
    done = kiln.kiln("pods", "--json", "--monitor", f"http://127.0.0.1:{scheduler.port}")
    return json.loads(done.stdout)


def leader_of(kiln):
    def found():
        return [s for s in kiln.schedulers if s.process and described(kiln, s)["leads"]]
    return cluster.wait_until(found, 40, what="a leader")[0]


def test_two_schedulers_share_the_pods(kiln, pods):
    pods.kube.template("python", min=0, max=4, slots=2, drain="1s")
    client = start(kiln, pods)
    assert client.run("python", "print('cold')")["stdout"] == "cold\n"
    tasks = [client.submit("python", f"import time; time.sleep(0.3); print({i})") for i in range(30)]
    done = [client.wait(t, 90) for t in tasks]
    assert [(t["status"], t["stdout"]) for t in done] == [("done", f"{i}\n") for i in range(30)]
    assert len([s for s in kiln.schedulers if described(kiln, s)["leads"]]) == 1
    text = kiln.kiln("pods", "--monitor", f"http://127.0.0.1:{leader_of(kiln).port}").stdout
    assert text.startswith("POOL") and "kiln-python-" in text
    other = next(s for s in kiln.schedulers if s is not leader_of(kiln))
    assert "does not decide" in kiln.kiln("pods", "--monitor",
                                          f"http://127.0.0.1:{other.port}").stdout


def test_version_is_known_with_the_first_runner(kiln, pods):
    pods.kube.template("python", min=0, max=2, slots=2)
    client = start(kiln, pods, schedulers=1)

    def python():
        told = client.get("/languages").json["languages"]
        return next(one for one in told if one["name"] == "python")
    cluster.wait_until(lambda: python()["installed"], what="the language is offered")
    assert python()["version"] is None
    assert client.run("python", "print(1)")["stdout"] == "1\n"
    cluster.wait_until(lambda: (python()["version"] or "").startswith("3."), what="its version")


def test_leader_that_is_killed_loses_no_task(kiln, pods):
    pods.kube.template("python", min=2, max=4, slots=2)
    client = start(kiln, pods)
    cluster.wait_until(lambda: len(pods.running()) >= 2, what="two pods")
    tasks = [client.submit("python", f"import time; time.sleep(0.5); print({i})") for i in range(30)]
    time.sleep(1)
    leader = leader_of(kiln)
    leader.kill()
    done = [client.wait(t, 120) for t in tasks]
    assert [(t["status"], t["stdout"]) for t in done] == [("done", f"{i}\n") for i in range(30)]
    assert leader_of(kiln) is not leader
    pods.kube.end(pods.running()[0])
    cluster.wait_until(lambda: len(pods.running()) >= 2, 60, what="the next leader replaces a pod")


def test_drained_pods_are_replaced_first(kiln, pods):
    pods.kube.template("python", min=2, max=4, slots=2)
    client = start(kiln, pods, schedulers=1)
    cluster.wait_until(lambda: len(pods.running()) == 2, what="two pods")
    old = set(pods.running())
    monitor = ["--monitor", f"http://127.0.0.1:{kiln.schedulers[0].port}", "--pods", pods.kube.url]
    cluster.wait_until(lambda: len(described(kiln, kiln.schedulers[0])["pods"]) == 2, what="both")
    task = client.submit("python", "import time; time.sleep(3); print('done')")
    said = kiln.kiln("pods", "drain", "--pool", "python", *monitor).stdout
    assert all(f"{name} is to be replaced" in said for name in old)
    cluster.wait_until(lambda: len(pods.running()) == 2 and not old & set(pods.running()), 60,
                       what="two others")
    done = client.wait(task, 60)
    assert (done["stdout"], done["attempt"]) == ("done\n", 1)
    for words, message in ((["nobody"], 'there is no pod "nobody"'),
                           (["--node", "nowhere"], "no pod is meant"), ([], "which pods")):
        done = kiln.kiln("pods", "drain", *words, *monitor, check=False)
        assert done.returncode and message in done.stderr, done


def test_local_pods_have_no_pools(kiln):
    kiln.schedulers.append(kiln.scheduler("local", pods="local:"))
    kiln.wait_ready()
    done = kiln.kiln("pods", "--monitor", f"http://127.0.0.1:{kiln.schedulers[0].port}", check=False)
    assert done.returncode == 1 and "not made by demand" in done.stderr
