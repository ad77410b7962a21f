# SPDX-License-Identifier: Apache-2.0
"""What can happen to a cluster: each fault begins, lasts, and is over when its function returns."""

import contextlib
import email.utils
import os
import signal
import subprocess
import time

from load import ROOT, sql
from harness import descendants, wait_until

SERVERS = ("postgres", "rabbitmq", "redis")
NODES = ("rabbitmq", "rabbitmq2", "rabbitmq3")
STOPPED_S = float(os.environ.get("KILN_CHAOS_STOP_SECONDS", "6"))


def stack(*args):
    return subprocess.run([os.path.join(ROOT, "tools", "stack.sh"), *args], check=True, timeout=180,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True).stdout


@contextlib.contextmanager
def three_nodes():
    """RabbitMQ has three nodes, and a cluster that is made meanwhile knows all of them."""
    before = os.environ["KILN_TEST_RABBITMQ_URL"]
    try:
        stack("up", *NODES[1:])
        os.environ["KILN_TEST_RABBITMQ_URL"] = stack("env", "rabbitmq").strip().partition("=")[2]
        yield
    finally:
        os.environ["KILN_TEST_RABBITMQ_URL"] = before
        stack("down", *NODES[1:])


def server_pid(name):
    return int(stack("status", name).rpartition("pid ")[2])


# ---- Kiln's own processes ----

def kill_process(process):
    process.kill()
    time.sleep(0.3)
    process.start()
    if "kiln-runner" not in process.argv[0]:
        process.wait_ready()


def stop_process(process):
    os.kill(process.process.pid, signal.SIGSTOP)
    try:
        time.sleep(STOPPED_S)
    finally:
        os.kill(process.process.pid, signal.SIGCONT)


# ---- servers ----

def kill_server(name):
    stack("kill", name)
    time.sleep(0.5)
    stack("up", name)


def stop_server(name):
    """Stands still with all that it has started, sessions of PostgreSQL too."""
    pid = server_pid(name)
    pids = [pid, *descendants(pid)]
    for one in pids:
        try:
            os.kill(one, signal.SIGSTOP)
        except ProcessLookupError:
            pass
    try:
        time.sleep(STOPPED_S)
    finally:
        for one in reversed(pids):
            try:
                os.kill(one, signal.SIGCONT)
            except ProcessLookupError:
                pass


# ---- connections and the like ----

def redis_cli(cluster, *args):
    port = cluster.shared[2].rpartition("/")[0].rpartition(":")[2]
    return subprocess.run(["redis-cli", "-p", port, *args], check=True, timeout=60,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout


def cut_postgres(cluster):
    for _ in range(5):
        sql(cluster, "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                     " WHERE application_name = 'kiln' AND pid <> pg_backend_pid()")
        time.sleep(0.4)


def cut_rabbitmq(cluster):
    del cluster
    for _ in range(3):
        stack("rabbitmqctl", "close_all_connections", "cut by a test")
        time.sleep(0.7)


def cut_redis(cluster):
    for kind in ("normal", "pubsub") * 3:
        redis_cli(cluster, "CLIENT", "KILL", "TYPE", kind)
        time.sleep(0.3)


def slow_redis(cluster):
    for _ in range(4):
        redis_cli(cluster, "DEBUG", "SLEEP", "0.7")
        time.sleep(0.2)


def memory_alarm(cluster):
    del cluster
    stack("rabbitmqctl", "set_vm_memory_high_watermark", "absolute", "1MB")
    try:
        time.sleep(4)
    finally:
        stack("rabbitmqctl", "set_vm_memory_high_watermark", "absolute", "1GB")


def each_queue(cluster, call):
    """Has the broker itself make an Erlang call with each queue Q of the cluster but that of the dead:
    one start of rabbitmqctl costs a second of CPU, and the load would go on for thirty of them."""
    done = stack("rabbitmqctl", "eval", f"""
        Ours = [Q || Q <- rabbit_amqqueue:list(<<"/">>),
                     {{resource, _, queue, Name}} <- [amqqueue:get_name(Q)],
                     nomatch =/= string:prefix(Name, <<"{cluster.name}.">>),
                     Name =/= <<"{cluster.name}.dead">>],
        [{call} || Q <- Ours],
        length(Ours).""")
    assert int(done) >= 3, f"the broker knew {done} queues of {cluster.name}"


def empty_broker(cluster):
    """All messages are gone, as after the loss of its disk."""
    each_queue(cluster, "{ok, _} = rabbit_amqqueue:purge(Q)")


def delete_queues(cluster):
    """The queues themselves are gone, under those who consume from them."""
    each_queue(cluster, '{ok, _} = rabbit_amqqueue:delete(Q, false, false, <<"a test">>)')


def replay_deliveries(cluster):
    """Everything that waits or runs is published again: each message comes twice and more."""
    for _ in range(4):
        sql(cluster, "INSERT INTO outbox (id, tenant, language, class, since)"
                     " SELECT id, tenant, language, class, 0 FROM live ON CONFLICT DO NOTHING")
        time.sleep(0.5)


CUTS = (cut_postgres, cut_rabbitmq, cut_redis, slow_redis, memory_alarm, empty_broker, delete_queues,
        replay_deliveries)


# ---- clocks ----

FAKETIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1"


def clock_of_its_own(path):
    """The environment of a process whose wall clock follows the file."""
    step_clock(path, "+0")
    return {"LD_PRELOAD": FAKETIME, "FAKETIME_TIMESTAMP_FILE": path, "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1", "FAKETIME_DONT_RESET": "1"}


def step_clock(path, by):
    with open(path + ".new", "w", encoding="ascii") as f:
        f.write(by + "\n")
    os.chmod(path + ".new", 0o644)
    os.rename(path + ".new", path)


def clock_of(process):
    """Its wall clock, by its own word, in seconds from ours."""
    date = process.get("/healthz").headers["Date"]
    return email.utils.parsedate_to_datetime(date).timestamp() - time.time()


def clock_steps(process, path):
    for by, seconds in (("+1h", 3600), ("-1h", -3600), ("+30s", 30), ("-30s", -30), ("+0", 0)):
        step_clock(path, by)
        time.sleep(2)
        assert abs(clock_of(process) - seconds) < 5, f"{process.name} did not take the step {by}"


def ready_again(cluster):
    def all_ready():
        try:
            return all(p.get("/readyz").status == 200 for p in cluster.apis + cluster.schedulers)
        except OSError:
            return False
    wait_until(all_ready, 60, every=0.2, what="every process ready again")
