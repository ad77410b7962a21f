# SPDX-License-Identifier: Apache-2.0
"""Kiln as separate processes over PostgreSQL, RabbitMQ and Redis, beside one "kiln serve".

Both are up at the same time and are loaded in turn, several rounds each, so that what the machine
does to one it does to the other; figures are medians over the rounds.
"""

import json
import os
import statistics
import subprocess
import time

from measure import line, ports, say
from programs import PROGRAMS
from servers import CLEAN_ENV, Cluster, Server, Stack

ROUNDS = 3
MANY = 1_000_000
FEW = 1_000
DAY_MS = 86_400_000
# What is queued during "submit alone" must not be refused.
CONFIG = "queue_max: 2000000\n"


# ---- embedded beside distributed ----

def median(rounds, key):
    return statistics.median(told[key] for told in rounds)


def pair(bench, both, name, language, code, clients, seconds):
    """Loads each in turn; {server's name: {p50_ms, rps, cpu_ms, errors}}."""
    body, told = bench.body(language, code), {who: [] for who in both}
    for server in both.values():
        bench.load(server, body, bench.seconds(1), clients)
    for _ in range(ROUNDS):
        for who, server in both.items():
            told[who].append(bench.load(server, body, bench.seconds(seconds), clients))
    result = {}
    for who, rounds in told.items():
        result[who] = {key: median(rounds, key) for key in ("p50_ms", "p95_ms", "p99_ms", "rps", "cpu_ms")}
        result[who]["errors"] = sum(r["errors"] for r in rounds)
        line(f"{name} {who}", result[who])
    return result


# ---- accepting, and reading ----

def occupy(cluster):
    """Takes all slots with tasks that sleep, so that what comes is accepted and stored only."""
    ids = []
    for _ in range(cluster.slots * cluster.runners):
        status, task = cluster.request("POST", "/submit", {
            "language": "bash", "code": "sleep 50", "limits": {"wall_ms": 60000}})
        assert status == 201, task
        ids.append(task["task_id"])
    for task_id in ids:
        while cluster.request("GET", f"/result/{task_id}")[1]["status"] != "running":
            time.sleep(0.02)
    return ids


def submit_alone(bench, cluster):
    blockers = occupy(cluster)
    told = bench.load(cluster, bench.body("c", PROGRAMS[0].code), bench.seconds(10), 16, expect=None,
                      extra=("--path", "/submit", "--status", "201"))
    for task_id in blockers:
        cluster.request("DELETE", f"/tasks/{task_id}")
    start, queued = time.monotonic(), told["n"]
    while int(cluster.stack.sql("SELECT count(*) FROM live")) > 0:
        if time.monotonic() - start > 600:
            say("    the tasks that were queued are not through after ten minutes")
            break
        time.sleep(0.5)
    told["drained_per_second"] = queued / (time.monotonic() - start)
    return told


def gets(bench, name, ids):
    path = os.path.join(bench.scratch, f"{name}.paths")
    with open(path, "w", encoding="utf-8") as f:
        f.writelines(f"/result/{task_id}\n" for task_id in ids)
    return path


def reads(bench, server, name, ids, rate=None):
    return bench.load(server, None, bench.seconds(5), 16, rate=rate, expect="hello\\n",
                      extra=("--gets", gets(bench, name, ids)))


def finished(server, n):
    code = PROGRAMS[1].code
    return [server.request("POST", "/submit?wait=60", {"language": "python", "code": code})[1]["task_id"]
            for _ in range(n)]


# ---- many rows ----

# Copies one finished task, under ids that are spread over a day.
FILL = """
SELECT kiln_make_days(to_timestamp({first_ms} / 1000)::date, 1);
WITH model AS (SELECT * FROM task WHERE id = '{model}'), ids AS (
  SELECT (lpad(to_hex({first_ms} + i::bigint * {spread_ms} / {n}), 12, '0') || '7' || substr(md5(i::text), 1, 3)
    || '8' || substr(md5(i::text), 4, 15))::uuid AS id FROM generate_series(0, {n} - 1) AS i)
INSERT INTO task (id, tenant, language, class, created, deadline, head, whole)
  SELECT ids.id, tenant, language, class, {first_ms}::bigint * 1000, deadline, head, whole FROM ids, model
  ON CONFLICT DO NOTHING;
WITH model AS (SELECT * FROM result WHERE id = '{model}')
INSERT INTO result (id, state, attempt, started, finished, outcome, head, whole)
  SELECT task.id, state, attempt, started, {first_ms}::bigint * 1000, outcome, model.head, model.whole
  FROM task, model WHERE task.id >= kiln_day_floor(to_timestamp({first_ms} / 1000)::date)
    AND task.id < kiln_day_floor(to_timestamp({first_ms} / 1000)::date + 1)
  ON CONFLICT DO NOTHING;
ANALYZE task, result;
"""


def day_ms(days_ago):
    now = int(time.time() * 1000)
    return now - now % DAY_MS - days_ago * DAY_MS


def fill(stack, model, n, days_ago):
    stack.sql(FILL.format(first_ms=day_ms(days_ago), spread_ms=DAY_MS - 1000, n=n, model=model))


def sample_ids(stack, n, days_ago):
    """Ids at random places of a day, so that no page of the tables is favoured."""
    low = time.strftime("%Y-%m-%d", time.gmtime(day_ms(days_ago) / 1000))
    return stack.sql(f"SELECT id FROM task WHERE id >= kiln_day_floor('{low}') AND id <"
                     f" kiln_day_floor('{low}'::date + 1) ORDER BY md5(id::text) LIMIT {n}").split()


def rows_apart(bench, cluster, ids):
    """Latency of submitting and of reading what no cache has, at a load far below saturation."""
    body = bench.body("c", PROGRAMS[0].code)
    return {
        "submit": bench.load(cluster, body, bench.seconds(10), 16, rate=50),
        "result": reads(bench, cluster, "rows", ids, rate=500),
    }


def many_rows(bench, cluster):
    stack = cluster.stack
    model = finished(cluster, 1)[0]
    fill(stack, model, FEW, 1)
    few = rows_apart(bench, cluster, sample_ids(stack, FEW, 1))
    line(f"submit {FEW}", few["submit"])
    line(f"result {FEW}", few["result"])
    n = max(10_000, int(MANY * bench.scale))
    fill(stack, model, n, 2)
    stack.sql("CHECKPOINT")
    many = rows_apart(bench, cluster, sample_ids(stack, 20_000, 2))
    line(f"submit {n}", many["submit"])
    line(f"result {n}", many["result"])
    return {"rows": n, "few": few, "many": many}


def drop_day(bench, cluster):
    """The scheduler drops a day whose retention is over, while tasks run."""
    stack = cluster.stack
    model = finished(cluster, 1)[0]
    fill(stack, model, max(10_000, int(100_000 * bench.scale)), 20)
    day = time.strftime("%Y%m%d", time.gmtime(day_ms(20) / 1000))
    process = background_load(bench, cluster, 30)
    cluster.stop("scheduler0")
    cluster.start_scheduler(0)  # prunes when it starts
    start = time.monotonic()
    while stack.sql(f"SELECT to_regclass('task_{day}')") and time.monotonic() - start < 25:
        time.sleep(0.2)
    gone = not stack.sql(f"SELECT to_regclass('task_{day}')")
    told = json.loads(process.communicate()[0])
    told.update({"cpu_ms": 0.0, "dropped_day": gone})
    return told


# ---- after a loss ----

def background_load(bench, cluster, seconds):
    return subprocess.Popen(
        [bench.tool("bench-load"), *ports(cluster), "--body", bench.body("c", PROGRAMS[0].code),
         "--clients", "16", "--seconds", str(seconds), "--expect", "hello\\n"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, env=CLEAN_ENV)


def scheduler_killed(cluster):
    """Seconds until every task that the killed scheduler followed runs again elsewhere."""
    stack, ids = cluster.stack, []
    for _ in range(cluster.slots * cluster.runners):
        ids.append(cluster.request("POST", "/submit", {
            "language": "bash", "code": "sleep 20", "limits": {"wall_ms": 60000}})[1]["task_id"])
    while int(stack.sql("SELECT count(*) FROM live WHERE state = 1")) < len(ids):
        time.sleep(0.02)
    owners = stack.sql("SELECT DISTINCT owner FROM live WHERE state = 1").split()
    cluster.kill("scheduler0")
    start = time.monotonic()
    told = {"tasks": len(ids), "schedulers_with_tasks": len(owners)}
    while True:
        again = int(stack.sql("SELECT count(*) FROM live WHERE state = 1 AND attempt > 1"))
        owners_now = stack.sql("SELECT DISTINCT owner FROM live WHERE state = 1").split()
        if (again > 0 and len(owners_now) == 1) or time.monotonic() - start > 60:
            break
        time.sleep(0.02)
    told["seconds"] = time.monotonic() - start
    told["moved"] = again
    for task_id in ids:
        cluster.request("DELETE", f"/tasks/{task_id}")
    cluster.start_scheduler(0)
    cluster.await_ready("scheduler0", cluster.metrics_ports[0])
    return told


def full_rate_after(bench, cluster, name, seconds=25):
    """Kills a server of the stack under load, brings it back, and watches the rate of results;
    seconds from the moment at which it takes connections to nine tenths of the rate before."""
    stack = cluster.stack
    process = background_load(bench, cluster, seconds)
    time.sleep(2)
    before, start = int(stack.sql("SELECT count(*) FROM result")), time.monotonic()
    time.sleep(3)
    rate = (int(stack.sql("SELECT count(*) FROM result")) - before) / (time.monotonic() - start)
    stack.run("kill", name)
    stack.run("up", name)
    returned = time.monotonic()
    last, last_at, told = None, returned, None
    while time.monotonic() - returned < seconds - 8:
        time.sleep(0.5)
        now, count = time.monotonic(), int(stack.sql("SELECT count(*) FROM result"))
        if last is not None and (count - last) / (now - last_at) >= 0.9 * rate:
            told = now - returned
            break
        last, last_at = count, now
    load = json.loads(process.communicate()[0] or "null")
    return {"rate": rate, "seconds": told, "errors": load["errors"] if load else None,
            "first_error": load["first_error"] if load else "the load ended"}


# ---- all of it ----

def run(bench, slots):
    report = {}
    with Stack() as stack, Server(bench.build, slots) as embedded:
        with Cluster(bench.build, stack, slots, config=CONFIG) as cluster:
            both = {"embedded": embedded, "distributed": cluster}
            say(f"\n  {'':22} {'p50 ms':>9} {'p95 ms':>9} {'p99 ms':>9} {'per second':>10}"
                f" {'CPU ms':>9} {'errors':>7}")
            report["python_one"] = pair(bench, both, "Python 1", PROGRAMS[1].language, PROGRAMS[1].code, 1, 4)
            report["c_one"] = pair(bench, both, "C 1", PROGRAMS[0].language, PROGRAMS[0].code, 1, 4)
            report["c_sixteen"] = pair(bench, both, "C 16", PROGRAMS[0].language, PROGRAMS[0].code, 16, 8)
            ids = finished(cluster, 200)
            report["reads"] = reads(bench, cluster, "cached", ids)
            line("cached results", report["reads"])
            report["submit_alone"] = submit_alone(bench, cluster)
            line("submit alone", report["submit_alone"])
            say(f"  what was queued ran at {report['submit_alone']['drained_per_second']:.0f}/s")
            report["resident_mib"] = cluster.resident_mib()
            report["rows"] = many_rows(bench, cluster)
        with Cluster(bench.build, stack, slots, schedulers=2, config=CONFIG) as cluster:
            report["drop_day"] = drop_day(bench, cluster)
            line("a day is dropped", report["drop_day"])
            report["scheduler_killed"] = scheduler_killed(cluster)
            report["recovery"] = {name: full_rate_after(bench, cluster, name)
                                  for name in ("rabbitmq", "postgres", "redis")}
    return report


def worse(rows, what):
    return rows["many"][what]["p50_ms"] / rows["few"][what]["p50_ms"]


def figures(report):
    """The project's own targets for separate processes, on this machine in this run."""
    python, c = report["python_one"], report["c_sixteen"]
    yield ("Python hello over embedded, one client, p50",
           python["distributed"]["p50_ms"] - python["embedded"]["p50_ms"], "ms", "<=", 4.0)
    yield "C hello, 16 clients", c["distributed"]["rps"], "/s", ">=", 300
    yield ("CPU per task over embedded, C hello, 16 clients",
           c["distributed"]["cpu_ms"] / c["embedded"]["cpu_ms"], "times", "<=", 1.5)
    yield ("errors", sum(side["errors"] for key in ("python_one", "c_one", "c_sixteen")
                         for side in report[key].values()), "", "<=", 0)
    yield "submit alone, durable, 16 clients", report["submit_alone"]["rps"], "/s", ">=", 2000
    yield "cached results read, 16 clients", report["reads"]["rps"], "/s", ">=", 15000
    rows = report["rows"]
    yield f"submit p50, {rows['rows']} rows over {FEW}", worse(rows, "submit"), "times", "<=", 1.2
    yield f"result p50, {rows['rows']} rows over {FEW}", worse(rows, "result"), "times", "<=", 1.2
    yield "scheduler killed: its tasks run again", report["scheduler_killed"]["seconds"], "s", "<=", 5
    for name in ("rabbitmq", "postgres"):
        seconds = report["recovery"][name]["seconds"]
        yield f"{name} is back: full rate", float("inf") if seconds is None else seconds, "s", "<=", 5
