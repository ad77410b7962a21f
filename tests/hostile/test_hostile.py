# SPDX-License-Identifier: Apache-2.0
"""Hostile programs through a real server, several at a time, while ordinary tasks run beside them: each
ends in time and as it should, none gets anything, no neighbour is disturbed, and nothing is left."""

import collections
import concurrent.futures
import datetime
import os
import random
import threading
import time

import pytest

import bombs
import census
import escapes
import harness
from attack import INVARIANTS, MARK, attack, text_of

ATTACKS = bombs.ATTACKS + escapes.ATTACKS
AT_A_TIME = 3
MARGIN_MS = 3000  # over the wall limit, of the run as of the compile step
COMPILE_WALL_MS = 30000  # the server's default

ORDINARY = {
    "python": "n = int(input())\nprint(sum(i * i for i in range(n)))",
    "bash": "read -r n; s=0; for ((i = 0; i < n; i++)); do s=$((s + i * i)); done; echo $s",
    "c": '#include <stdio.h>\nint main(void) { long n, s = 0; if (scanf("%ld", &n) != 1) return 1; '
         'for (long i = 0; i < n; i++) s += i * i; printf("%ld\\n", s); }',
    "javascript": "const n = Number(require('fs').readFileSync(0)); let s = 0; "
                  "for (let i = 0; i < n; i++) s += i * i; console.log(s);",
}


def test_table_is_what_it_says():
    names = [a.name for a in ATTACKS]
    assert len(set(names)) == len(names), [n for n, k in collections.Counter(names).items() if k > 1]
    assert len({(a.language, a.code, a.stdin, a.args) for a in ATTACKS}) == len(ATTACKS) >= 120
    assert {a.language for a in ATTACKS} == {"c", "cpp", "python", "java", "javascript", "bash"}
    assert {a.kind for a in ATTACKS} == set(INVARIANTS) - {"leave", "standby"}


def milliseconds(task):
    began, ended = (datetime.datetime.fromisoformat(task["timeline"][k].replace("Z", "+00:00"))
                    for k in ("started_at", "finished_at"))
    return (ended - began).total_seconds() * 1000


def complaints(one, task):
    """What is wrong with a result; empty if nothing is."""
    wrong = []
    if task["status"] != "done":
        return [f"status {task['status']}: {task['error']}"]
    if task["attempt"] != 1:
        wrong.append(f"attempt {task['attempt']}: something of the server had died")
    if task["outcome"] not in one.outcome:
        wrong.append(f"outcome {task['outcome']} ({task['limit_hit']}, exit code {task['exit_code']}, "
                     f"signal {task['signal']}),"
                     f" expected {sorted(one.outcome)}")
    compile_ms = 0
    text = text_of(task, "stdout") + text_of(task, "stderr")
    if task["compile"]:
        compile_ms = COMPILE_WALL_MS if task["outcome"] == "compile_error" else task["compile"]["wall_ms"]
        if any(word in task["compile"]["output"] for word in one.hides):
            wrong.append("the compiler shows what it must not")
    if "ESCAPED" in text:
        wrong.append("the attack worked")
    wrong += [f"prints {word!r}" for word in one.hides if word in text]
    if task["outcome"] in ("ok", "runtime_error", "signalled"):
        wrong += [f"does not print {word!r}" for word in one.says if word not in text]
    most = one.limits["wall_ms"] + MARGIN_MS
    if task["usage"] and task["usage"]["wall_ms"] > most:
        wrong.append(f"ran {task['usage']['wall_ms']} ms, at most {most} are allowed")
    if task["outcome"] != "compile_error" and milliseconds(task) > most + compile_ms + MARGIN_MS:
        wrong.append(f"took {milliseconds(task):.0f} ms of its slot, with {compile_ms} ms of the compiler")
    return [f"{w}; printed {text[-300:]!r}" for w in wrong]


LATE = collections.defaultdict(list)  # by limit: milliseconds over it


def note_lateness(one, task):
    """How long after its limit a task was ended, and how long its slot was taken for besides its run."""
    usage, hit = task["usage"], task["limit_hit"]
    if not usage or task["outcome"] == "compile_error":
        return
    name = {"wall_ms": "wall_ms", "cpu_ms": "cpu_ms"}.get(hit)
    if name:
        LATE[name].append((usage[name] - one.limits[name], one.name))
    if not task["compile"]:
        LATE["around the run"].append((milliseconds(task) - usage["wall_ms"], one.name))


def lateness():
    """Of all that ran: told, not asserted, since a busy machine is late with everything."""
    for what, found in sorted(LATE.items()):
        found = sorted(found, reverse=True)
        at = [found[len(found) * p // 100][0] for p in (50, 10, 1)] + [found[0][0]]
        yield (f"{what}: {len(found)} tasks, p50 {at[0]:.0f} ms, p90 {at[1]:.0f} ms, p99 {at[2]:.0f} ms, most "
               f"{at[3]:.0f} ms; over 100 ms: {', '.join(n for ms, n in found if ms > 100) or 'none'}")


def run_one(server, one):
    try:
        fields = {"limits": one.limits, "args": list(one.args)}
        if one.stdin:
            fields["stdin"] = one.stdin
        task = server.wait(server.submit(one.language, one.code, **fields), 120)
        note_lateness(one, task)
        return [f"{one.name}: {w} ({INVARIANTS.get(one.kind, '')})" for w in complaints(one, task)]
    except (AssertionError, OSError) as e:
        return [f"{one.name}: {type(e).__name__}: {e}"]


class Neighbours:
    """Ordinary tasks one after another, for as long as the hostile ones run."""

    def __init__(self, server):
        self.server, self.done, self.wrong = server, 0, []
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def one(self, number):
        language = list(ORDINARY)[number % len(ORDINARY)]
        n = 100 + number % 900
        task = self.server.wait(self.server.submit(language, ORDINARY[language], stdin=f"{n}\n",
                                                   limits={"wall_ms": 60000, "cpu_ms": 10000}), 120)
        want = f"{sum(i * i for i in range(n))}\n"
        got = [task[k] for k in ("status", "outcome", "stdout", "stderr", "attempt")]
        if got != ["done", "ok", want, "", 1]:
            self.wrong.append(task)

    def run(self):
        while not self.over.is_set():
            try:
                self.one(self.done)
            except (AssertionError, OSError) as e:
                self.wrong.append(repr(e))
            self.done += 1

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()


def warm(server):
    """Every slot has run something, so that what is made once is there before the census."""
    ids = [server.submit("bash", "sleep 0.3") for _ in range(8)]
    for i in ids:
        assert server.wait(i)["outcome"] == "ok"


def run_all(server, attacks):
    warm(server)
    before = settled(server)
    start = time.monotonic()
    with Neighbours(server) as beside, concurrent.futures.ThreadPoolExecutor(AT_A_TIME) as pool:
        wrong = [w for found in pool.map(lambda a: run_one(server, a), attacks) for w in found]
    print("\n".join(lateness()))
    print(f"{len(attacks)} hostile and {beside.done} ordinary tasks in {time.monotonic() - start:.0f} s")
    assert not wrong, "\n".join(wrong)
    assert not beside.wrong, beside.wrong[:3]
    assert beside.done >= 10
    assert_equal(server, before)


def settled(server):
    """The host once nothing changes any more: what stands by is made anew a moment after a task."""
    harness.wait_until(lambda: not census.tasks(), what="end of all processes in sandboxes")
    seen = []

    def is_still():
        seen.append(census.take(server))
        return len(seen) >= 4 and all(one == seen[-1] for one in seen[-4:])
    harness.wait_until(is_still, every=0.5, what="a host that stands still")
    return seen[-1]


def assert_equal(server, before):
    try:
        harness.wait_until(lambda: census.take(server) == before, what="the host as before")
    except AssertionError:
        after = census.take(server)
        raise AssertionError({k: {"before": before[k], "after": after[k]} for k in after
                              if before[k] != after[k]}) from None


def test_in_order(server):
    run_all(server, ATTACKS)


def test_shuffled(server):
    seed = int(os.environ.get("KILN_HOSTILE_SEED", random.SystemRandom().randrange(1 << 32)))
    print(f"KILN_HOSTILE_SEED={seed}")
    attacks = list(ATTACKS)
    random.Random(seed).shuffle(attacks)
    run_all(server, attacks)


@pytest.mark.parametrize("code, outcome, says, hides, complaint", [
    ("print('ESCAPED')", "ok", (), (), "the attack worked"),
    ("import sys\nsys.stderr.write('ESCAPED')", "ok", (), (), "the attack worked"),
    ("print('tried')", "runtime_error", (), (), "outcome ok"),
    ("print('tried')", "ok", ("refused",), (), "does not print 'refused'"),
    ("print('root:x')", "ok", (), ("root:",), "prints 'root:'"),
])
def test_what_is_wrong_is_complained_about(server, code, outcome, says, hides, complaint):
    wrong = run_one(server, attack("test", "wrong", "python", code, outcome, says, hides=hides))
    assert len(wrong) == 1 and complaint in wrong[0], wrong


@pytest.mark.parametrize("name", escapes.CHANNELS)
def test_finder_finds_within_one_task(server, name):
    """What is not found across tasks would have been, had it been there."""
    code = escapes.channel(name, escapes.LEAVE, escapes.FIND, seconds=0.2)
    task = server.run("python", code)
    assert "FOUND" in task["stdout"], task


@pytest.mark.skipif(os.getuid() != 0, reason="needs root: the sandbox has ids of its own")
def test_census_sees_what_runs(server):
    task_id = server.submit("python", "import time\ntime.sleep(2)")
    server.until_running(task_id)
    harness.wait_until(census.tasks, what="a process with an id of a sandbox")
    server.wait(task_id)
    settled(server)


def test_census_sees_what_is_left(server):
    before = census.take(server)
    path = f"/dev/shm/{MARK}-left"
    try:
        with open(path, "w", encoding="utf-8"):
            assert census.take(server) != before
    finally:
        os.unlink(path)
    assert census.take(server) == before
