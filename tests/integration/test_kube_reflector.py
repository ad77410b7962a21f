# SPDX-License-Identifier: Apache-2.0
"""Following pods while the API server forgets, stammers, breaks off, stays silent or goes away."""

import time

import pytest

from fake_kube import Kube
from kube import Harness

RUNNING = 1


@pytest.fixture
def kube():
    one = Kube()
    one.start_s = 1e9  # no kubelet: the tests say what happens
    yield one
    one.close()


@pytest.fixture
def start():
    started = []

    def make(kube):
        one = Harness("reflect", kube.url.partition(":")[2])
        started.append(one)
        return one
    yield make
    for one in started:
        code = one.close()
        assert code == 0, one.log_text()


def add(kube, name, phase="Pending", **status):
    return kube.put("pods", {"metadata": {"name": name, "labels": {"app": "kiln-pod"}},
                             "spec": {"nodeName": "n"}, "status": {"phase": phase} | status})


def told(h):
    """What a store would hold after everything that was told so far."""
    held, listing = {}, None
    for e in list(h.events):
        if e["event"] == "begin":
            listing = set()
        elif e["event"] == "seen":
            held[e["name"]] = e["phase"]
            if listing is not None:
                listing.add(e["name"])
        elif e["event"] == "deleted":
            held.pop(e["name"], None)
        elif e["event"] == "listed":
            held = {n: p for n, p in held.items() if n in listing}
            listing = None
    return held


def until(h, expected, seconds=10):
    end = time.monotonic() + seconds
    while told(h) != expected:
        assert time.monotonic() < end, f"{told(h)}, not {expected}\n{h.log_text()}"
        time.sleep(0.01)


def lists(kube):
    return len(kube.seen("list", "pods"))


def test_list_and_events(kube, start):
    add(kube, "a")
    h = start(kube)
    h.wait("listed")
    add(kube, "b", "Running", podIP="10.1.2.3")
    got = h.wait("seen", name="b")
    assert (got["phase"], got["ip"]) == (RUNNING, "10.1.2.3")
    kube.remove("pods", "a")
    h.wait("deleted", name="a")
    assert told(h) == {"b": RUNNING} and lists(kube) == 1


def test_others_are_not_told(kube, start):
    kube.put("pods", {"metadata": {"name": "x", "labels": {"app": "other"}}, "spec": {},
                      "status": {"phase": "Running"}})
    h = start(kube)
    h.wait("listed")
    assert told(h) == {}


def test_list_in_pages(kube, start):
    kube.page_max = 7
    for i in range(50):
        add(kube, f"p{i:02}")
    h = start(kube)
    h.wait("listed")
    assert len(told(h)) == 50 and lists(kube) == 8


def test_continue_token_that_expired_begins_anew(kube, start):
    kube.page_max = 7
    for i in range(20):
        add(kube, f"p{i:02}")
    kube.fault("list", "pods", status=410)
    h = start(kube)
    h.wait("listed")
    assert len(told(h)) == 20 and len(h.seen("begin")) == 2


def test_410_in_the_stream_lists_again(kube, start):
    """What happened while nobody watched is made up for, also what was deleted."""
    add(kube, "a")
    add(kube, "b")
    h = start(kube)
    h.wait("listed")
    kube.wait(lambda: kube.seen("watch", "pods"))
    kube.fault("watch", "pods", times=3, status=503)
    kube.cut_all()
    kube.forget("pods", "a")
    add(kube, "c")
    kube.compact()
    until(h, {"b": 0, "c": 0})
    assert lists(kube) == 2


def test_410_as_a_status_lists_again(kube, start):
    add(kube, "a")
    kube.fault("watch", "pods", status=410)
    h = start(kube)
    h.wait("listed")
    h.wait("listed")
    until(h, {"a": 0})


def test_410_for_ever_is_asked_for_ever_more_slowly(kube, start):
    kube.fault("watch", "pods", times=1000, error={"kind": "Status", "code": 410, "message": "old"})
    h = start(kube)
    time.sleep(2)
    assert 3 <= lists(kube) <= 6  # 0.1, 0.2, 0.4, 0.8 ... s
    kube.faults.clear()
    add(kube, "a")
    until(h, {"a": 0})


def test_other_errors_in_the_stream(kube, start):
    kube.fault("watch", "pods", error={"kind": "Status", "code": 500, "message": "etcd is ill"})
    h = start(kube)
    h.wait("listed")
    add(kube, "a")
    until(h, {"a": 0})
    h.wait_log("etcd is ill")


@pytest.mark.parametrize("garbage", [b"<html>\n", b'{"type":"ADDED","object":{}}\n', b"[]\n",
                                     b'{"type":"WHAT","object":{"metadata":{"resourceVersion":"1"}}}\n',
                                     b'{"type":"ADDED","object":{"metadata":{"name":"q",'
                                     b'"resourceVersion":"5"}}}\n', b"\xff\xfe\n"])
def test_garbage_lists_again(kube, start, garbage):
    add(kube, "a")
    kube.fault("watch", "pods", garbage=garbage)
    h = start(kube)
    h.wait("listed")
    h.wait("listed")
    until(h, {"a": 0})


def test_line_without_end_is_bounded(kube, start):
    kube.fault("watch", "pods", garbage=b'{"type":"' + b"A" * (3 << 20))
    h = start(kube)
    h.wait("listed")
    h.wait("listed")
    h.wait_log("longer than")


def test_cut_watch_goes_on_from_where_it_was(kube, start):
    kube.fault("watch", "pods", cut=2)
    h = start(kube)
    h.wait("listed")
    for i in range(6):
        add(kube, f"p{i}")
    until(h, {f"p{i}": 0 for i in range(6)})
    versions = [e["version"] for e in h.seen("seen")]
    assert sorted(versions) == sorted(set(versions)), "an event was told twice"
    assert lists(kube) == 1


def test_cut_within_an_event(kube, start):
    kube.fault("watch", "pods", garbage=b'{"type":"MODIFIED","object":{"metadata":{"na', cut=0)
    h = start(kube)
    h.wait("listed")
    add(kube, "a")
    until(h, {"a": 0})
    assert lists(kube) == 1


def test_slow_watch(kube, start):
    kube.fault("watch", "pods", slow=0.02)
    h = start(kube)
    h.wait("listed")
    add(kube, "a")
    add(kube, "b", "Running")
    until(h, {"a": 0, "b": RUNNING})
    assert len(kube.seen("watch", "pods")) == 1


def test_bookmark_moves_the_version(kube, start):
    h = start(kube)
    h.wait("listed")
    kube.wait(lambda: kube.seen("watch", "pods"))
    kube.put("leases", {"metadata": {"name": "x"}})  # not a pod, and moves the version all the same
    time.sleep(0.6)
    kube.compact()
    kube.cut_all()
    kube.wait(lambda: len(kube.seen("watch", "pods")) == 2)
    add(kube, "a")
    until(h, {"a": 0})
    assert lists(kube) == 1


def test_silent_watch_is_made_up_for_by_a_list(kube, start):
    kube.fault("watch", "pods", silent=True)
    h = start(kube)
    h.wait("listed")
    kube.wait(lambda: kube.seen("watch", "pods"))
    add(kube, "a")
    time.sleep(0.3)
    assert told(h) == {}
    h.say("relist")
    until(h, {"a": 0})


def test_list_refused_for_a_while(kube, start):
    kube.fault("list", "pods", times=7, status=500)
    h = start(kube)
    add(kube, "a")
    until(h, {"a": 0}, 20)


def test_watch_refused_with_429_waits(kube, start):
    kube.fault("watch", "pods", status=429, retry_after=1)
    h = start(kube)
    h.wait("listed")
    kube.wait(lambda: len(kube.seen("watch", "pods")) == 1)
    first = time.monotonic()
    kube.wait(lambda: len(kube.seen("watch", "pods")) == 2)
    assert time.monotonic() - first >= 0.9
    assert lists(kube) == 1


def test_server_away_and_back(kube, start):
    add(kube, "a")
    h = start(kube)
    h.wait("listed")
    kube.go_away()
    time.sleep(1)
    h.say("trouble")
    assert "API server" in h.wait("trouble")["text"]
    assert told(h) == {"a": 0}, "what is known stays known"
    kube.forget("pods", "a")
    add(kube, "b")
    kube.compact()
    kube.come_back()
    until(h, {"b": 0}, 20)
    h.say("trouble")
    time.sleep(0.5)


def test_end_while_listing(kube, start):
    kube.fault("list", "pods", hang=2)
    h = start(kube)
    h.wait("begin")
