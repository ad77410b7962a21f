# SPDX-License-Identifier: Apache-2.0
"""Requests to an API server that is slow, refuses, breaks off or is not there."""

import pytest

from fake_kube import Kube
from kube import Harness

PODS = "/api/v1/namespaces/kiln-test/pods"


@pytest.fixture
def kube():
    one = Kube()
    yield one
    one.close()


@pytest.fixture
def start():
    started = []

    def make(kube, *more):
        one = Harness("calls", kube.url.partition(":")[2] + "".join(more))
        started.append(one)
        return one
    yield make
    for one in started:
        code = one.close()
        assert code == 0, one.log_text()


def test_answer_is_told(kube, start):
    h = start(kube)
    h.say("GET", PODS)
    got = h.wait("done")
    assert (got["code"], got["status"], got["tries"]) == (0, 200, 1) and got["len"] > 10


def test_refusal_has_the_servers_words(kube, start):
    h = start(kube)
    h.say("GET", PODS + "/none")
    got = h.wait("done")
    assert (got["code"], got["status"], got["tries"]) == (-2, 404, 1)
    assert got["error"] == 'the API server answered 404: pods "none" not found'


@pytest.mark.parametrize("status, code", [(409, -17), (410, -116), (422, -22), (403, -1)])
def test_answers_are_not_tried_again(kube, start, status, code):
    kube.fault("list", "pods", status=status)
    h = start(kube)
    h.say("GET", PODS)
    got = h.wait("done")
    assert (got["code"], got["status"], got["tries"]) == (code, status, 1)


def test_500_is_tried_again(kube, start):
    kube.fault("list", "pods", times=2, status=500)
    h = start(kube)
    h.say("GET", PODS)
    got = h.wait("done")
    assert (got["code"], got["tries"]) == (0, 3) and got["took"] >= 300


def test_500_that_stays_is_given_up(kube, start):
    kube.fault("list", "pods", times=100, status=503)
    h = start(kube)
    h.say("GET", PODS)
    got = h.wait("done")
    assert (got["code"], got["status"], got["tries"]) == (-5, 503, 5)


def test_429_waits_as_told(kube, start):
    kube.fault("list", "pods", status=429, retry_after=1)
    h = start(kube)
    h.say("GET", PODS)
    got = h.wait("done")
    assert (got["code"], got["tries"]) == (0, 2) and got["took"] >= 1000


def test_retries_have_a_budget(kube, start):
    kube.fault("list", "pods", times=1000, status=500)
    h = start(kube)
    for _ in range(40):
        h.say("GET", PODS)
    tries = [h.wait("done", 20)["tries"] for _ in range(40)]
    assert sum(tries) == 40 + 10  # the reserve, and nothing on top of it
    kube.faults.clear()
    for _ in range(10):
        h.say("GET", PODS)
    assert [h.wait("done")["code"] for _ in range(10)] == [0] * 10
    kube.fault("list", "pods", times=1, status=500)
    h.say("GET", PODS)  # ten that succeeded have paid for two
    assert h.wait("done")["code"] == 0


def test_cut_connection_is_tried_again(kube, start):
    kube.fault("list", "pods", cut=True)
    h = start(kube)
    h.say("GET", PODS)
    got = h.wait("done")
    assert got["code"] == 0


def test_silence_ends(kube, start):
    kube.fault("list", "pods", times=9, hang=3)
    h = start(kube)
    h.say("GET", PODS)
    got = h.wait("done", 30)
    assert (got["code"], got["tries"]) == (-110, 5) and "timed out" in got["error"].lower()


def test_nobody_listens(kube, start):
    kube.go_away()
    h = start(kube)
    h.say("GET", PODS)
    got = h.wait("done", 30)
    assert (got["code"], got["tries"]) == (-111, 5)


def test_long_answer_is_refused(kube, start):
    kube.put("pods", {"metadata": {"name": "big", "annotations": {"x": "y" * 8192}},
                      "spec": {}, "status": {"phase": "Succeeded"}})
    h = start(kube)
    h.say("GET", PODS + "/big")
    got = h.wait("done")
    assert got["code"] == -90 and got["tries"] == 1


def test_token_is_read_again_when_refused(kube, start, tmp_path):
    token = tmp_path / "token"
    token.write_text("old\n")
    kube.token = "old"
    h = start(kube, f"&token={token}")
    h.say("GET", PODS)
    assert h.wait("done")["code"] == 0
    kube.token = "new"
    token.write_text("new")
    h.say("GET", PODS)
    got = h.wait("done")
    assert (got["code"], got["tries"]) == (0, 2)
    kube.token = "other"
    h.say("GET", PODS)
    assert h.wait("done")["code"] == -1


def test_end_while_requests_are_under_way(kube, start):
    kube.fault("list", "pods", times=5, hang=2)
    h = start(kube)
    for _ in range(5):
        h.say("GET", PODS)
    kube.wait(lambda: len(kube.seen("list")) == 5)
