# SPDX-License-Identifier: Apache-2.0
"""The manager of pods, with the rights of deploy/kubernetes/base, at a real API server (api_server.py
says which). What the fake one of tests/integration gets wrong would show here."""

import os
import sys
import threading
import time

import pytest

from api_server import ROOT, ApiServer, missing

sys.path.insert(0, os.path.join(ROOT, "tests", "integration"))
from kube import Harness  # noqa: E402

pytestmark = pytest.mark.skipif(bool(missing()), reason=f"not set: {', '.join(missing())}")


@pytest.fixture(scope="module")
def api(tmp_path_factory):
    one = ApiServer(str(tmp_path_factory.mktemp("kube")))
    yield one
    one.close()


class Manager(Harness):
    """Runners that are drained end, but for those in "kept"."""

    def __init__(self, api):
        self.api, self.kept, self.stopping = api, set(), False
        super().__init__("pods", api.url, "2")
        threading.Thread(target=self.end_drained, daemon=True).start()

    def end_drained(self):
        done = 0
        while not self.stopping:
            drained = self.seen("drain")
            for e in drained[done:]:
                if e["pod"] not in self.kept:
                    self.api.end(e["pod"])
            done = len(drained)
            time.sleep(0.05)


@pytest.fixture
def manager(api):
    one = Manager(api)
    yield one
    one.stopping = True
    code = one.close()
    assert code == 0, one.log_text()


def test_role_is_enough_and_no_more(api):
    for verb in ("list", "watch", "create", "patch", "delete"):
        assert api.may(verb, "pods")
    for verb in ("get", "update"):
        assert api.may(verb, "leases", "coordination.k8s.io", "kiln-pods")
        assert not api.may(verb, "leases", "coordination.k8s.io", "another")
    assert api.may("list", "podtemplates") and api.may("watch", "podtemplates")
    for verb, resource, group in (
            ("get", "secrets", ""), ("list", "secrets", ""), ("get", "configmaps", ""),
            ("create", "podtemplates", ""), ("update", "podtemplates", ""), ("create", "pods/exec", ""),
            ("get", "pods/log", ""), ("create", "pods/eviction", ""), ("deletecollection", "pods", ""),
            ("create", "deployments", "apps"), ("list", "nodes", ""), ("create", "serviceaccounts/token", ""),
            ("update", "roles", "rbac.authorization.k8s.io")):
        assert not api.may(verb, resource, group), (verb, resource)


def test_days_of_a_pool(api, manager):
    """Minimum, burst, labels and evictions, replacement, a roll-out around a busy pod, the end."""
    api.template("img:1", min="3", max="10", slots="2")
    api.wait(lambda: len(api.running()) == 3, what="the minimum")
    manager.say("waiting", "python", 400)
    api.wait(lambda: len(api.running()) == 10, what="the maximum")
    manager.say("waiting", "python", 0)
    busy, idle, unwanted, failed = api.running()[:4]
    manager.kept.add(busy)
    manager.say("use", busy, 1, 0)
    api.wait(lambda: [p for p in api.pods() if p["metadata"]["name"] == busy and
                      p["metadata"]["labels"]["kiln/state"] == "busy"], what="the label")

    def evict(name):
        return api.call("POST", f"pods/{name}/eviction", {
            "apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}})[0]
    api.wait(lambda: evict(busy) == 429, what="the disruption budget")  # its controller is not at once
    assert evict(idle) == 201
    api.wait(lambda: idle not in api.running() and len(api.running()) == 10, what="another for it")
    api.kubectl("annotate", "pod", unwanted, "kiln/replace=")
    api.wait(lambda: unwanted not in api.running(), what="the one that is unwanted gone")
    api.end(failed, "Failed", 137)
    api.wait(lambda: failed not in api.running() and len(api.running()) == 10, what="another")

    api.template("img:2", min="3", max="10", slots="2")
    api.wait(lambda: len(api.running("img:2")) >= 9, 90, what="the roll-out")
    assert busy in api.running()
    manager.say("use", busy, 0, 1)
    api.end(busy)
    api.wait(lambda: len(api.running("img:2")) == 10 and len(api.running()) == 10, what="all of it")

    api.kubectl("delete", "podtemplate", "python", "--cascade=orphan")
    api.wait(lambda: not api.pods(), 60, what="no pods without a template")
    assert '"answered 403' not in manager.log_text()
