# SPDX-License-Identifier: Apache-2.0
"""A load of mixed tasks that goes on whatever happens, and remembers what it was told."""

import http.client
import json
import os
import random
import secrets
import subprocess
import sys
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
for folder in ("e2e", "stack"):
    sys.path.insert(0, os.path.join(ROOT, "tests", folder))

from checker import FINAL, Submission, World, check  # noqa: E402
from harness import Client, wait_until  # noqa: E402

GIVE_UP_S = 120  # a client tries one submission for so long
STATES = ("queued", "running", "done", "cancelled", "expired", "failed")


def ok(nonce):
    return {"language": "bash", "code": f"sleep 0.0{secrets.randbelow(10)}; echo {nonce}"}, \
        ("done",), {"outcome": "ok", "stdout": f"{nonce}\n", "exit_code": 0}


def python(nonce):
    return {"language": "python", "code": "print(input())", "stdin": f"{nonce}\n"}, \
        ("done",), {"outcome": "ok", "stdout": f"{nonce}\n"}


def compiled(nonce):
    code = '#include <stdio.h>\nint main(int c, char **v) { return puts(v[c - 1]) < 0; }\n'
    return {"language": "c", "code": code, "args": [nonce]}, \
        ("done",), {"outcome": "ok", "stdout": f"{nonce}\n"}


def broken(nonce):
    return {"language": "c", "code": f"int main(void) {{ return {nonce}; }}"}, \
        ("done",), {"outcome": "compile_error"}


def failing(nonce):
    return {"language": "bash", "code": f"echo {nonce} >&2; exit 3"}, \
        ("done",), {"outcome": "runtime_error", "exit_code": 3, "stderr": f"{nonce}\n"}


# Time enough to say its word where two cores run all of a cluster.
def endless(nonce):
    return {"language": "bash", "code": f"echo {nonce}; sleep 60", "limits": {"wall_ms": 1000}}, \
        ("done",), {"outcome": "time_limit", "stdout": f"{nonce}\n"}


def urgent(nonce):
    return {"language": "bash", "code": f"echo {nonce}", "priority": "high"}, \
        ("done",), {"outcome": "ok", "stdout": f"{nonce}\n"}


def late(nonce):
    return {"language": "bash", "code": f"echo {nonce}", "deadline_ms": 200, "priority": "low"}, \
        ("done", "expired"), {"stdout": f"{nonce}\n"}


def cancelled(nonce):
    return {"language": "bash", "code": f"sleep 0.5; echo {nonce}"}, \
        ("done", "cancelled"), {"stdout": f"{nonce}\n"}


KINDS = (ok, ok, ok, python, compiled, broken, failing, endless, urgent, late, cancelled)


class Load:
    def __init__(self, cluster, threads=6):
        self.cluster = cluster
        self.submissions, self.seen = [], {}
        self.end, self.lock = threading.Event(), threading.Lock()
        self.random = random.Random(secrets.randbits(32))
        self.errors = []
        self.threads = [threading.Thread(target=self.guarded, args=(n,)) for n in range(threads)]
        for t in self.threads:
            t.start()

    def guarded(self, n):
        try:
            self.work(n)
        except Exception as e:  # pylint: disable=broad-except
            self.errors.append(repr(e))

    def ask(self, i, method, path, body=None, headers=None):
        """An answer, or None where there was none that counts."""
        port = self.cluster.apis[i % len(self.cluster.apis)].port
        try:
            answer = Client(port).request(method, path, body, headers, timeout=20)
        except (OSError, http.client.HTTPException):
            return None
        return None if answer.status in (429, 503) else answer

    def work(self, n):
        i = n
        while not self.end.is_set():
            i += 1
            kind = KINDS[self.random.randrange(len(KINDS))]
            nonce = f"n{secrets.token_hex(6)}"
            body, statuses, fields = kind(nonce)
            # None of them is slow: what a machine is that has other things to do is no fault here.
            body.setdefault("limits", {"wall_ms": 60000})
            s = Submission(nonce, statuses, fields)
            with self.lock:
                self.submissions.append(s)
            self.submit(s, body, i)
            if s.accepted and kind is cancelled:
                self.ask(i + 1, "DELETE", f"/tasks/{s.accepted[0]}")
            if s.accepted and i % 3 == 0:
                self.watch(s.accepted[0], i)

    def submit(self, s, body, i):
        """Until there is an answer; the key makes it one task, however often it is sent."""
        end = time.monotonic() + GIVE_UP_S
        while not s.accepted:
            answer = self.ask(i, "POST", "/submit", body, {"Idempotency-Key": s.key})
            if answer is not None:
                assert answer.status in (200, 201), (answer, body)
                s.accepted.append(answer.json["task_id"])
            elif time.monotonic() > end:
                s.unknown = True
                return
            else:
                i += 1
                time.sleep(0.1)
        if i % 5 == 0:  # a client that never saw the answer
            answer = self.ask(i + 1, "POST", "/submit", body, {"Idempotency-Key": s.key})
            if answer is not None:
                assert answer.status in (200, 201), (answer, body)
                s.accepted.append(answer.json["task_id"])

    def watch(self, task_id, i):
        """Sees some of the states that the task goes through; one client, one order."""
        seen = self.seen.setdefault(task_id, [])
        for _ in range(20):
            answer = self.ask(i, "GET", f"/result/{task_id}")
            if answer is not None and answer.status == 200:
                seen.append(answer.json["status"])
                if seen[-1] in FINAL:
                    return
            time.sleep(0.05)

    def count(self):
        with self.lock:
            return sum(bool(s.accepted) for s in self.submissions)

    def grow(self, by=60, seconds=120):
        want = self.count() + by
        wait_until(lambda: self.errors or self.count() >= want, seconds, what="the load goes on")
        assert not self.errors, self.errors

    def finish(self):
        self.end.set()
        for t in self.threads:
            t.join()
        assert not self.errors, self.errors


# ---- the end ----

def sql(cluster, text):
    done = subprocess.run(["psql", "-qAtX", cluster.postgres, "-v", "ON_ERROR_STOP=1", "-c",
                           f"SET search_path = {cluster.name}", "-c", text], check=True, timeout=60,
                          stdout=subprocess.PIPE, text=True)
    return [line.split("|") for line in done.stdout.splitlines()]


def rabbitmqctl(*argv):
    return subprocess.run([os.path.join(ROOT, "tools", "stack.sh"), "rabbitmqctl", *argv], check=True,
                          timeout=60, stdout=subprocess.PIPE, text=True).stdout


def depth(cluster):
    """Messages in the queues of this cluster, and dead letters."""
    queued = dead = 0
    for line in rabbitmqctl("list_queues", "name", "messages").splitlines():
        name, _, n = line.partition("\t")
        if name.startswith(cluster.name) and n.isdigit():
            if "dead" in name:
                dead += int(n)
            else:
                queued += int(n)
    return queued, dead


def final_of(cluster, task_id, until):
    while True:
        for api in cluster.apis:
            try:
                answer = Client(api.port).get(f"/result/{task_id}?wait=5", timeout=20)
            except (OSError, http.client.HTTPException):
                continue
            if answer.status == 200 and answer.json["status"] in FINAL:
                return answer.json
            assert answer.status in (200, 503), answer
        if time.monotonic() > until:
            return None


def settle(cluster, load, seconds=180, others=()):
    """Waits until everything that was accepted is through, and gives the world for the checker. others:
    ids of tasks that are none of the load's."""
    load.finish()
    until = time.monotonic() + seconds
    ids = sorted({i for s in load.submissions for i in s.accepted})
    results = {i: r for i in ids if (r := final_of(cluster, i, until)) is not None}

    def empty():
        left = sql(cluster, "SELECT (SELECT count(*) FROM live), (SELECT count(*) FROM outbox)")[0]
        return left == ["0", "0"] and depth(cluster) == (0, 0)
    try:
        wait_until(empty, max(20, until - time.monotonic()), every=0.5)
    except AssertionError:  # the checker says that something is left; here is where
        print(rabbitmqctl("list_queues", "name", "messages_ready", "messages_unacknowledged", "consumers"))
    live, outbox = sql(cluster, "SELECT (SELECT count(*) FROM live), (SELECT count(*) FROM outbox)")[0]
    rows = {}
    for task_id, state, attempt in sql(cluster, "SELECT id, state, attempt FROM result"):
        rows.setdefault(task_id, []).append((STATES[int(state)], int(attempt)))
    queued, dead = depth(cluster)
    again = {i: final_of(cluster, i, time.monotonic() + 20) for i in results}
    return World(load.submissions, load.seen, results, again, rows,
                 {row[0] for row in sql(cluster, "SELECT id FROM task")}, int(live), int(outbox),
                 queued, dead, set(others))


def assert_right(cluster, load, **kw):
    world = settle(cluster, load, **kw)
    found = check(world)
    attempts = {}
    for rows in world.rows.values():
        for _, attempt in rows:
            attempts[attempt] = attempts.get(attempt, 0) + 1
    print(json.dumps({"submissions": len(world.submissions), "results": len(world.rows),
                      "watched": len(world.seen), "attempts": attempts,
                      "unknown": sum(s.unknown for s in world.submissions)}))
    assert not found, f"{len(found)} violations, the first: {found[:5]}"
