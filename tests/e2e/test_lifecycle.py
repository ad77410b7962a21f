# SPDX-License-Identifier: Apache-2.0
"""Idempotency, cancel, lists, waits, deadlines, priorities and the bounded queue."""

import threading
import time

import pytest

from harness import SANITIZED, problem

SLEEP = "import time\ntime.sleep({})"


def blocked(server, seconds=30):
    """Fills the only slot of a server with a task that sleeps, and returns its id."""
    task_id = server.submit("python", SLEEP.format(seconds), limits={"wall_ms": 60000})
    server.until_running(task_id)
    return task_id


@pytest.fixture
def one_slot(make_server):
    return make_server(slots=1)


# ---- idempotency ----

def test_same_key_and_body_give_the_same_task(server):
    body, headers = {"language": "bash", "code": "echo once"}, {"Idempotency-Key": "key-1"}
    first = server.post("/submit", body, headers=headers)
    second = server.post("/submit", body, headers=headers)
    assert (first.status, second.status) == (201, 200), (first, second)
    assert first.json["task_id"] == second.json["task_id"]
    server.wait(first.json["task_id"])
    third = server.post("/submit", body, headers=headers)
    assert third.status == 200
    assert third.json["task_id"] == first.json["task_id"]


def test_same_key_and_another_body_is_a_conflict(server):
    headers = {"Idempotency-Key": "key-2"}
    assert server.post("/submit", {"language": "bash", "code": "1"}, headers=headers).status == 201
    problem(server.post("/submit", {"language": "bash", "code": "2"}, headers=headers), 409,
            "Idempotency-Key")


def test_same_key_at_the_same_time_makes_one_task(server):
    body, headers = {"language": "bash", "code": "echo race"}, {"Idempotency-Key": "key-3"}
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(
        server.post("/submit", body, headers=headers))) for _ in range(12)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert sorted(a.status for a in answers) == [200] * 11 + [201], answers
    assert len({a.json["task_id"] for a in answers}) == 1


def test_same_key_waits_for_the_same_result(server):
    body, headers = {"language": "bash", "code": "echo same; sleep 0.3"}, {"Idempotency-Key": "key-4"}
    task_id = server.post("/submit", body, headers=headers).json["task_id"]
    answer = server.post("/submit?wait=20", body, headers=headers)
    assert answer.status == 200
    assert (answer.json["task_id"], answer.json["stdout"]) == (task_id, "same\n")


# ---- cancel ----

def test_cancel_of_a_queued_task(one_slot):
    blocker = blocked(one_slot)
    task_id = one_slot.submit("bash", "echo never")
    answer = one_slot.cancel(task_id)
    assert answer.status == 200, answer
    assert answer.json["status"] == "cancelled"
    task = one_slot.result(task_id)
    assert (task["status"], task["stdout"], task["usage"]) == ("cancelled", None, None), task
    problem(one_slot.cancel(task_id), 409)
    one_slot.cancel(blocker)
    assert one_slot.wait(blocker, 5)["status"] == "cancelled"


def test_cancel_of_a_running_task(server):
    task_id = server.submit("python", "print('begun', flush=True)\nimport time\ntime.sleep(60)",
                            limits={"wall_ms": 60000})
    server.until_running(task_id)
    time.sleep(1 if SANITIZED else 0.3)
    answer = server.cancel(task_id)
    assert answer.status == 200, answer
    assert (answer.json["status"], answer.json["cancelling"]) == ("running", True), answer
    start = time.monotonic()
    task = server.wait(task_id)
    assert time.monotonic() - start < 30  # of sixty
    assert task["status"] == "cancelled", task
    assert task["stdout"] == "begun\n", task
    assert task["usage"] is not None, task
    assert server.run("bash", "echo free")["stdout"] == "free\n"


def test_cancel_wakes_those_who_wait(one_slot):
    blocker = blocked(one_slot)
    got = []
    thread = threading.Thread(target=lambda: got.append(one_slot.result(blocker, wait=30)))
    thread.start()
    time.sleep(0.2)
    one_slot.cancel(blocker)
    thread.join(10)
    assert got and got[0]["status"] == "cancelled", got


def test_cancel_while_compiling(server):
    # A compile that takes its time: a switch over many macros.
    code = "".join(f"int f{i}(int a) {{ return a * {i} + f{i - 1}(a); }}\n" if i else
                   "int f0(int a) { return a; }\n" for i in range(30000)) + "int main(void) { return 0; }"
    task_id = server.submit("c", code)
    server.until_running(task_id)
    assert server.cancel(task_id).status == 200
    task = server.wait(task_id)
    assert (task["status"], task["usage"]) == ("cancelled", None), task


def test_cancel_of_a_finished_task_is_a_conflict(server):
    task_id = server.submit("bash", "echo x")
    before = server.wait(task_id)
    problem(server.cancel(task_id), 409, "done")
    assert server.result(task_id) == before


def test_cancel_of_many(one_slot):
    blocker = blocked(one_slot)
    ids = [one_slot.submit("bash", "echo never") for _ in range(50)]
    assert {one_slot.cancel(i).status for i in ids} == {200}
    one_slot.cancel(blocker)
    assert one_slot.run("bash", "echo after")["stdout"] == "after\n"
    assert {one_slot.result(i)["status"] for i in ids} == {"cancelled"}


# ---- waits ----

def test_wait_that_runs_out_tells_the_present_state(server):
    start = time.monotonic()
    answer = server.post("/submit?wait=0.3", {"language": "python", "code": SLEEP.format(2)})
    assert time.monotonic() - start >= 0.29
    assert answer.status == 202, answer
    assert answer.json["status"] in ("queued", "running")
    task_id = answer.json["task_id"]
    answer = server.get(f"/result/{task_id}?wait=0.1")
    assert (answer.status, answer.json["status"]) == (200, "running"), answer
    assert server.wait(task_id)["outcome"] == "ok"


def test_wait_of_zero_answers_at_once(server):
    answer = server.post("/submit?wait=0", {"language": "python", "code": SLEEP.format(1)})
    assert (answer.status, answer.json["status"] in ("queued", "running")) == (202, True), answer


def test_wait_ends_as_soon_as_the_task_does(server):
    task_id = server.submit("python", SLEEP.format(0.5))
    start = time.monotonic()
    assert server.result(task_id, wait=60)["status"] == "done"
    assert time.monotonic() - start < 30  # of sixty


def test_many_wait_for_one_task(server):
    task_id = server.submit("python", SLEEP.format(1))
    got = []
    threads = [threading.Thread(target=lambda: got.append(server.result(task_id, wait=30)))
               for _ in range(30)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert [g["status"] for g in got] == ["done"] * 30


# ---- list ----

def test_list_is_newest_first_and_pages_without_gaps(make_server):
    server = make_server(slots=2)
    ids = [server.submit("bash", f"echo {i}") for i in range(25)]
    for i in ids:
        server.wait(i)
    seen, path, pages = [], "/tasks?limit=10", 0
    while path:
        page = server.get(path).json
        seen += [t["task_id"] for t in page["tasks"]]
        cursor = page.get("next_cursor")
        path = f"/tasks?limit=10&cursor={cursor}" if cursor else None
        pages += 1
        assert pages < 10
    assert seen == ids[::-1]
    for task in server.get("/tasks?limit=5").json["tasks"]:
        assert (task["status"], task["language"]) == ("done", "bash")


def test_list_by_status_and_language(make_server):
    server = make_server(slots=1)
    server.run("bash", "true")
    server.run("python", "1")
    blocker = blocked(server)
    waiting = server.submit("bash", "true")

    def ids(query):
        return [t["task_id"] for t in server.get(f"/tasks?{query}").json["tasks"]]
    assert ids("status=queued") == [waiting]
    assert ids("status=running") == [blocker]
    assert len(ids("status=done")) == 2
    assert len(ids("language=bash")) == 2
    assert len(ids("language=bash&status=done")) == 1
    server.cancel(waiting)
    server.cancel(blocker)


# ---- deadline, priority, bound ----

def test_deadline_in_the_queue_expires_the_task(one_slot):
    blocker = blocked(one_slot)
    start = time.monotonic()
    task_id = one_slot.submit("bash", "echo late", deadline_ms=500)
    task = one_slot.wait(task_id)
    assert task["status"] == "expired", task
    assert 0.4 < time.monotonic() - start < 8
    assert (task["stdout"], task["usage"]) == (None, None)
    problem(one_slot.cancel(task_id), 409)
    one_slot.cancel(blocker)


def test_deadline_that_is_met_changes_nothing(server):
    assert server.run("bash", "echo x", deadline_ms=60000)["outcome"] == "ok"


def test_classes_share_by_weight_and_none_starves(one_slot):
    blocker = blocked(one_slot)
    ids = {name: [one_slot.submit("bash", "true", priority=name) for _ in range(20)]
           for name in ("low", "normal", "high")}
    one_slot.cancel(blocker)
    started = []
    for name, tasks in ids.items():
        started += [(one_slot.wait(i)["timeline"]["started_at"], name) for i in tasks]
    order = [name for _, name in sorted(started)]
    first = order[:20]
    assert first.count("high") > first.count("normal") > first.count("low"), order
    # The lowest class is served while the highest still has tasks.
    assert "low" in order[:order.index("high") + 30], order
    last_high = len(order) - 1 - order[::-1].index("high")
    assert order.index("low") < last_high, order


def test_tasks_of_one_class_start_in_order(one_slot):
    blocker = blocked(one_slot)
    ids = [one_slot.submit("bash", "true") for _ in range(15)]
    one_slot.cancel(blocker)
    started = [one_slot.wait(i)["timeline"]["started_at"] for i in ids]
    assert started == sorted(started)


def test_full_queue_refuses_and_leaves_no_row(make_server):
    server = make_server(slots=1, config={"queue_max": 10})
    blocker = blocked(server)
    answers = [server.post("/submit", {"language": "bash", "code": "true"}) for _ in range(20)]
    taken = [a.json["task_id"] for a in answers if a.status == 201]
    refused = [a for a in answers if a.status != 201]
    assert 9 <= len(taken) <= 12, answers
    for answer in refused:
        problem(answer, 429)
        assert int(answer.headers["Retry-After"]) >= 1
    assert len(server.get("/tasks?limit=100").json["tasks"]) == len(taken) + 1
    server.cancel(blocker)
    for task_id in taken:
        assert server.wait(task_id)["outcome"] == "ok"
    assert server.run("bash", "echo room")["stdout"] == "room\n"
