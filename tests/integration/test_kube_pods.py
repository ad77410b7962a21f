# SPDX-License-Identifier: Apache-2.0
"""The whole pod manager against an API server that refuses, forgets, breaks off and goes away, with
the test in the place of scheduler and runners."""

import datetime
import itertools
import json
import signal
import threading
import time

import pytest

from fake_kube import Kube
from kube import Harness

ports = itertools.count(29400)


@pytest.fixture
def kube():
    one = Kube(pod_port=next(ports))
    yield one
    one.close()


class Manager(Harness):
    """Drained pods end once they have no task, as their runners would."""

    def __init__(self, kube, slots=1, end_drained=True, more=""):
        self.kube, self.used, self.drained, self.stopping = kube, {}, set(), False
        super().__init__("pods", kube.url + more, str(slots))
        if end_drained:
            threading.Thread(target=self.end_drained, daemon=True).start()

    def end_drained(self):
        done = 0
        while not self.stopping:
            events = [e for e in list(self.events) if e["event"] == "drain"]
            for e in events[done:]:
                self.drained.add(e["pod"])
            done = len(events)
            for pod in [p for p in self.drained if not self.used.get(p)]:
                self.drained.discard(pod)
                self.kube.end(pod)
            time.sleep(0.01)

    def use(self, pod, used, tasks=0):
        self.used[pod] = used
        self.say("use", pod, used, tasks)

    def waiting(self, n, language="python"):
        self.say("waiting", language, n)

    def explain(self):
        self.say("explain")
        return self.wait("explained")["text"]

    def close(self):
        self.stopping = True
        return super().close()


@pytest.fixture
def start():
    started = []

    def make(kube, **more):
        one = Manager(kube, **more)
        started.append(one)
        return one
    yield make
    for one in started:
        code = one.close()
        assert code in (0, -9), one.log_text()
        assert "runtime error" not in one.log_text()


@pytest.fixture
def pool(kube, start):
    """A pool with its least pods: (manager, names)."""
    def make(min, slots=1, **annotations):
        annotations.setdefault("max", 10)
        kube.template("python", min=min, slots=slots, **annotations)
        m = start(kube, slots=slots)
        return m, settled(kube, min)
    return make


@pytest.fixture
def two(kube, start, pool):
    """Two managers of a pool of two pods: the one that leads, and one that is connected too."""
    first, _ = pool(2)
    second = start(kube)
    kube.wait(lambda: len(second.seen("connected")) == 2)
    return first, second


def running(kube):
    return [p for p in kube.pods() if p["status"]["phase"] == "Running" and
            "deletionTimestamp" not in p["metadata"]]


def names(pods):
    return sorted(p["metadata"]["name"] for p in pods)


def settled(kube, n, seconds=20, ready=True):
    """n pods, and still n a while later."""
    kube.wait(lambda: len(running(kube)) == n and (not ready or len(kube.pods()) == n), seconds,
              f"{n} pods")
    time.sleep(1.2)
    assert len(running(kube)) == n
    return names(running(kube))


def writes(kube, since=0):
    return [r for r in kube.requests[since:] if r[1] in ("create", "delete") and r[2] == "pods"]


# ---- ordinary days ----


def test_pool_has_its_minimum(kube, start):
    kube.template("python", min=3, max=10)
    m = start(kube)
    assert m.wait("offered")["language"] == "python"
    pods = settled(kube, 3)
    assert sorted(e["pod"] for e in m.seen("connected")) == pods
    assert {e["identity"] for e in m.seen("connected")} == {"python"}
    assert len(writes(kube)) == 3
    pod = kube.pods()[0]
    assert pod["metadata"]["labels"]["kiln/pool"] == "python"
    assert pod["metadata"]["ownerReferences"][0]["kind"] == "PodTemplate"


def test_template_comes_later(kube, start):
    m = start(kube)
    time.sleep(0.5)
    assert "no pod template" in m.explain()
    kube.template("python", min=1, max=10)
    settled(kube, 1)


def test_first_task_does_not_wait_for_the_clock(kube, start):
    """Most of five: they would wait half a second on average, and the machine may be busy."""
    languages = ["bash", "c", "java", "python", "ruby"]
    for language in languages:
        kube.template(language, min=0, max=10)
    m = start(kube)
    kube.wait(lambda: kube.seen("list", "pods") and len(kube.seen("list", "pods")) >= 2)
    time.sleep(2)
    assert not kube.pods()
    took = []
    for i, language in enumerate(languages):
        time.sleep(0.4)
        m.waiting(1, language)
        begun = time.monotonic()
        kube.wait(lambda n=i: len(kube.seen("create", "pods")) > n)
        took.append(time.monotonic() - begun)
    assert sorted(took)[2] < 0.3, took


def test_burst_gets_its_pods_and_not_many_more(kube, pool):
    """Ten more pods; how soon they serve is what a benchmark says."""
    m, _ = pool(1, max=40, drain="1s")
    m.waiting(10)
    kube.wait(lambda: len(m.seen("connected")) >= 10, 60)
    m.waiting(0)
    time.sleep(1)
    assert len(kube.seen("create", "pods")) <= 1 + 13


def test_surplus_goes_when_it_was_idle(kube, pool):
    m, _ = pool(1, idle="2s", drain="1s")
    m.waiting(5)
    kube.wait(lambda: len(running(kube)) >= 5)
    m.waiting(0)
    kube.wait(lambda: len(kube.pods()) == 1, 60, "one pod")
    assert m.seen("drain")


def test_no_busy_pod_is_deleted(kube, pool):
    m, pods = pool(4, idle="1s")
    for p in pods[:2]:
        m.use(p, 1)
    kube.template("python", min=0, max=10, idle="1s")
    kube.wait(lambda: names(kube.pods()) == pods[:2], 60, "the busy ones")
    time.sleep(2)
    assert names(running(kube)) == pods[:2]
    m.use(pods[0], 0, 1)
    m.use(pods[1], 0, 1)
    kube.wait(lambda: not kube.pods(), 60, "none")


def test_busy_label_for_what_lasts(kube, pool):
    m, (pod,) = pool(1, max=1)
    m.use(pod, 1)
    kube.wait(lambda: kube.pods(**{"kiln_state": "busy"}), 10)
    patches = kube.seen("patch", "pods")
    assert len(patches) == 1 and "resourceVersion" in patches[0][5]


def test_pools_and_pods_are_described(kube, start, pool):
    m, pods = pool(2, max=9, slots=3)
    m.use(pods[0], 2, 7)
    time.sleep(1.2)
    m.say("describe")
    told = m.wait("described")["all"]
    pool = told["pools"][0]
    assert told["leads"] and (pool["name"], pool["min"], pool["max"]) == ("python", 2, 9)
    assert (pool["want"], pool["reason"], pool["failed_starts"]) == (2, "min", 0)
    assert "want 2 (min), have 2" in pool["why"]
    busy = next(p for p in told["pods"] if p["name"] == pods[0])
    assert (busy["state"], busy["slots"], busy["used"], busy["tasks"]) == ("busy", 3, 2, 7)
    assert busy["node"] == "node-1" and 0 <= busy["age_s"] < 3600
    m.wait_log("a pool as it is")
    other = start(kube)
    kube.wait(lambda: len(other.seen("connected")) == 2)
    time.sleep(0.5)
    other.say("describe")
    told = other.wait("described")["all"]
    assert not told["leads"] and told["leader"] and told["pools"][0]["want"] is None


# ---- pods that fail ----


def test_pod_that_dies_is_replaced(kube, pool):
    m, pods = pool(2, max=5)
    kube.end(pods[0], "Failed", 137, "OOMKilled")
    kube.wait(lambda: len(running(kube)) == 2 and pods[0] not in names(kube.pods()))
    m.wait_log('"end":"oom"')


def test_pod_that_vanishes_is_replaced(kube, pool):
    _, pods = pool(2, max=5)
    kube.remove("pods", pods[0])
    kube.wait(lambda: len(running(kube)) == 2)


def test_evicted_pod_is_replaced_at_once(kube, pool):
    m, pods = pool(2, max=5)
    kube.end(pods[0], "Failed", 0, "", status_reason="Evicted")
    kube.wait(lambda: len(running(kube)) == 2 and pods[0] not in names(kube.pods()))
    m.wait_log('"end":"evicted"')
    assert "failed in pool" not in m.explain()


def test_image_that_fails_is_not_started_for_ever(kube, start):
    kube.template("python", min=5, max=10)
    kube.mode = "fail"
    m = start(kube)
    time.sleep(8)
    assert 3 <= len(kube.seen("create", "pods")) <= 12
    assert "starts in a row failed in pool python" in m.explain()
    kube.mode = "run"
    m.waiting(3)  # whoever waits is not kept waiting for minutes
    kube.wait(lambda: len(running(kube)) >= 1, 20)


def test_pods_that_stick_are_replaced_after_their_time(kube, start):
    kube.template("python", min=1, max=3, start_timeout="2s")
    kube.mode = "stick"
    m = start(kube)
    kube.wait(lambda: kube.seen("delete", "pods"), 10)
    m.wait_log('"why":"never_ready"')
    kube.mode = "run"
    kube.wait(lambda: len(running(kube)) == 1, 20)


def test_full_cluster_holds_its_pods(kube, start):
    kube.template("python", min=5, max=10)
    kube.capacity = 3
    start(kube)
    kube.wait(lambda: len(running(kube)) == 3)
    time.sleep(3)
    assert len(kube.pods()) == 5 and len(writes(kube)) == 5
    kube.capacity = 10
    settled(kube, 5)
    assert len(writes(kube)) == 5


# ---- nodes ----


def node_of(kube, name):
    return next(p["spec"].get("nodeName") for p in kube.pods() if p["metadata"]["name"] == name)


def test_pods_of_a_cordoned_node_are_replaced_elsewhere(kube, pool):
    m, pods = pool(3)
    m.use(pods[0], 1)
    kube.node("node-2")
    kube.node("node-1", cordoned=True)
    kube.wait(lambda: {node_of(kube, p) for p in names(running(kube)) if p != pods[0]} == {"node-2"},
              30, "all but the busy one are elsewhere")
    assert pods[0] in names(running(kube)), "it has a task"
    m.wait_log('"why":"node_cordoned"')
    m.use(pods[0], 0, 1)
    kube.wait(lambda: pods[0] not in names(kube.pods()) and len(running(kube)) == 3, 20)


def test_only_node_that_is_cordoned_keeps_its_pods(kube, pool):
    m, pods = pool(3)
    kube.node("node-1", cordoned=True)
    kube.wait(lambda: '"cordoned":"yes"' in m.log_text())
    time.sleep(4)
    assert names(running(kube)) == pods


def test_pods_of_a_node_that_is_not_ready_are_replaced(kube, pool):
    m, pods = pool(2)
    kube.node("node-2")
    kube.node("node-1", ready="Unknown")
    kube.wait(lambda: {node_of(kube, p) for p in names(running(kube))} == {"node-2"}, 30)
    m.wait_log('"why":"node_not_ready"')


def test_pods_that_start_on_a_node_that_fails_start_elsewhere(kube, start):
    kube.start_s = 10**6
    kube.template("python", min=2, max=5)
    m = start(kube)
    kube.wait(lambda: len(kube.pods()) == 2)
    kube.start_s = 0.05
    kube.node("node-2")
    kube.node("node-1", ready="False")
    kube.wait(lambda: len(running(kube)) == 2, 20)
    assert "failed in pool" not in m.explain(), "its template is not to blame"


def test_without_the_right_to_see_nodes_all_else_goes_on(kube, pool):
    kube.fault("list", "nodes", times=10**6, status=403)
    m, pods = pool(2)
    kube.end(pods[0], "Failed", 137, "OOMKilled")
    kube.wait(lambda: len(running(kube)) == 2 and pods[0] not in names(kube.pods()))
    assert "nodes" not in m.explain()


# ---- an API server that makes trouble ----


def test_create_whose_answer_was_lost_is_made_once(kube, start):
    kube.fault("create", "pods", times=2, after=500)
    kube.template("python", min=2, max=5)
    start(kube)
    settled(kube, 2)
    assert len({r[3] for r in kube.seen("create", "pods")}) == 2


def test_create_without_any_answer_is_looked_for(kube, start):
    """Five tries, none answered, the first of which did it: no second pod comes of it."""
    kube.fault("create", "pods", times=1, after=500)
    kube.fault("create", "pods", times=4, status=500)
    kube.template("python", min=1, max=5)
    start(kube)
    settled(kube, 1, 30)
    assert len(kube.pods()) == 1


@pytest.mark.parametrize("status", [403, 422, 429, 500])
def test_refused_creates(kube, start, status):
    kube.template("python", min=2, max=5)
    kube.fault("create", "pods", times=10**6, status=status)
    m = start(kube)
    time.sleep(4)
    assert len(kube.seen("create", "pods")) <= 25  # five tries of each, and few of them
    assert f"answered {status}" in m.explain()
    kube.faults.clear()
    m.waiting(2)
    kube.wait(lambda: len(running(kube)) >= 2, 40)


def test_quota_is_no_reason_to_hammer(kube, start):
    kube.quota = 2
    kube.template("python", min=6, max=10)
    m = start(kube)
    kube.wait(lambda: len(running(kube)) == 2)
    time.sleep(4)
    assert len(kube.seen("create", "pods")) <= 10
    assert "exceeded quota" in m.explain()


def test_conflict_on_delete_is_decided_anew(kube, pool):
    _, pods = pool(2, max=5)
    kube.fault("delete", "pods", times=3, status=409)
    kube.end(pods[0])
    kube.wait(lambda: pods[0] not in names(kube.pods()))
    assert len(kube.seen("delete", "pods", pods[0])) == 4


def test_deletion_names_the_version(kube, pool):
    _, pods = pool(1, max=5)
    kube.end(pods[0])
    kube.wait(lambda: kube.seen("delete", "pods"))
    body = kube.seen("delete", "pods")[0][5]
    assert '"uid"' in body and '"resourceVersion"' in body


def test_starting_pod_that_became_ready_is_not_deleted(kube, start):
    """The decision was made on an older version of it."""
    kube.start_s = 1.5
    kube.template("python", min=3, max=5, idle="1s")
    m = start(kube)
    kube.wait(lambda: len(kube.pods()) == 3)
    kube.fault("watch", "pods", times=1, silent=True)
    kube.cut_all()
    time.sleep(0.5)
    kube.wait(lambda: len(running(kube)) == 3, what="they run, and it does not know")
    kube.template("python", min=0, max=5, idle="1s")
    time.sleep(3)
    refused = [r for r in kube.seen("delete", "pods") if r[4] == 409]
    assert not [r for r in kube.seen("delete", "pods") if r[4] == 200 and not m.seen("drain")]
    assert refused or not kube.seen("delete", "pods")


def test_api_server_away_leaves_what_there_is(kube, pool):
    m, pods = pool(3)
    kube.go_away()
    for p in pods:
        m.use(p, 1)
    m.waiting(20)
    time.sleep(12)
    assert not m.seen("lost") and not m.seen("retired") and not m.seen("drain")
    assert "API server" in m.explain()
    kube.come_back()
    kube.wait(lambda: len(running(kube)) > 3, 40, "more pods after it is back")


def test_what_happened_while_it_was_away_is_made_up_for(kube, pool):
    _, pods = pool(3)
    kube.go_away()
    kube.forget("pods", pods[0])
    kube.compact()
    time.sleep(1)
    kube.come_back()
    kube.wait(lambda: len(running(kube)) == 3 and pods[0] not in names(kube.pods()), 40)
    assert {pods[1], pods[2]} <= set(names(kube.pods()))


def test_silent_watch_does_not_create_for_ever(kube, start):
    kube.fault("watch", "pods", times=100, silent=True)
    kube.template("python", min=3, max=20)
    start(kube)
    kube.wait(lambda: len(running(kube)) == 3)
    time.sleep(5)
    assert len(kube.seen("create", "pods")) == 3


# ---- templates ----


def test_new_template_is_rolled_out_without_a_gap(kube, start):
    kube.template("python", image="img:1", min=4, max=10)
    start(kube)
    old = settled(kube, 4)
    least = [4]
    stop = threading.Event()

    def look():
        while not stop.is_set():
            least.append(len(running(kube)))
            time.sleep(0.005)
    watcher = threading.Thread(target=look)
    watcher.start()
    kube.template("python", image="img:2", min=4, max=10)
    kube.wait(lambda: not set(old) & set(names(kube.pods())) and len(kube.pods()) == 4, 40)
    stop.set()
    watcher.join()
    assert min(least) >= 4
    assert {p["spec"]["containers"][0]["image"] for p in kube.pods()} == {"img:2"}


def test_template_that_does_not_work_takes_nothing_away(kube, start):
    kube.template("python", image="img:1", min=3, max=10)
    m = start(kube)
    old = settled(kube, 3)
    kube.mode = lambda pod: "fail" if pod["spec"]["containers"][0]["image"] == "img:2" else "run"
    kube.template("python", image="img:2", min=3, max=10)
    time.sleep(6)
    assert names(running(kube)) == old
    assert "failed in pool python" in m.explain()
    kube.template("python", image="img:3", min=3, max=10)
    kube.wait(lambda: len(running(kube)) == 3 and not set(old) & set(names(running(kube))), 40)


def test_template_that_is_wrong_leaves_what_is_in_force(kube, pool):
    m, pods = pool(2)
    kube.template("python", min=9, max=3)
    m.say("reload")
    time.sleep(2)
    assert names(running(kube)) == pods
    m.wait_log("kiln/min is above")


def test_template_that_is_gone_lets_its_pods_go(kube, pool):
    m, pods = pool(3)
    m.use(pods[0], 1)
    kube.remove("podtemplates", "python")
    m.wait("offered", yes=0)
    kube.wait(lambda: names(kube.pods()) == pods[:1], 20)
    m.use(pods[0], 0, 1)
    kube.wait(lambda: not kube.pods(), 20)


# ---- several managers ----


def leaders(managers):
    return [m for m in managers if m.log_text().count("decides the sizes of the pools") >
            m.log_text().count("no longer decides the sizes")]


def lease(kube):
    with kube.lock:
        return dict(kube.objects["leases"]["kiln-pods"]["spec"])


def moment(text):
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def test_one_of_two_decides_and_both_are_connected(kube, start):
    kube.template("python", min=3, max=10)
    both = [start(kube), start(kube)]
    settled(kube, 3)
    assert len(writes(kube)) == 3
    assert len(leaders(both)) == 1
    for m in both:
        assert len(m.seen("connected")) == 3


def test_leader_that_ends_lets_the_next_begin_at_once(kube, two):
    first, second = two
    assert first.close() == 0
    holders = [json.loads(r[5])["spec"]["holderIdentity"] for r in kube.seen("update", "leases")]
    assert "" in holders, "let go of, so that nobody waits for its end"
    kube.end(names(kube.pods())[0])
    kube.wait(lambda: len(running(kube)) == 2, 10)
    assert leaders([second])


def test_leader_that_dies_is_followed_after_its_lease(kube, two):
    first, second = two
    first.kill()
    left = lease(kube)
    kube.end(names(kube.pods())[0])
    kube.wait(lambda: len(running(kube)) == 2, 40)
    taken = lease(kube)
    assert taken["holderIdentity"] not in ("", left["holderIdentity"]) and leaders([second])
    # As both have written it down: not before the lease of the dead one was over.
    assert moment(taken["acquireTime"]) - moment(left["renewTime"]) >= left["leaseDurationSeconds"]


def test_leader_that_stood_still_does_no_harm(kube, two):
    """It wakes up in the belief that it leads, with a write under way."""
    first, second = two
    kube.fault("delete", "pods", times=1, hang=0.5)
    kube.end(names(kube.pods())[0])
    kube.wait(lambda: kube.seen("delete", "pods"))
    first.process.send_signal(signal.SIGSTOP)
    kube.end(names(running(kube))[0])
    kube.wait(lambda: len(running(kube)) == 2, 40, "the second replaces them")
    first.process.send_signal(signal.SIGCONT)
    pods = settled(kube, 2)
    time.sleep(3)
    assert names(kube.pods()) == pods
    assert leaders([first, second]) == [second]


def test_leader_that_cannot_renew_stops_to_write(kube, pool):
    m, pods = pool(2)
    kube.fault("update", "leases", times=10**6, status=500)
    time.sleep(13)
    assert not leaders([m])
    before = len(writes(kube))
    kube.end(pods[0])
    time.sleep(2)
    assert len(writes(kube)) == before
    kube.faults.clear()
    kube.wait(lambda: len(running(kube)) == 2, 30)


def test_new_manager_takes_over_what_it_finds(kube, start):
    kube.template("python", min=2, max=10)
    first = start(kube)
    pods = settled(kube, 2)
    assert first.close() == 0
    second = start(kube)
    kube.wait(lambda: len(second.seen("connected")) == 2)
    time.sleep(3)
    assert names(running(kube)) == pods and len(writes(kube)) == 2


def test_pods_are_bounded_together(kube, start):
    kube.template("a", min=4, max=10)
    kube.template("b", min=4, max=10)
    start(kube, more="&max_pods=6")
    settled(kube, 6)


# ---- ends ----


def test_end_while_everything_is_under_way(kube, start):
    kube.start_s = 0.5
    kube.template("python", min=20, max=20)
    m = start(kube)
    kube.wait(lambda: len(kube.pods()) > 3)
    kube.fault("create", "pods", times=5, hang=1)
    assert m.close() == 0, m.log_text()


def test_wrong_address_is_refused(kube):
    with pytest.raises(AssertionError, match="no namespace"):
        Harness("pods", "kubernetes:Upper?server=http://127.0.0.1:1", "1")
