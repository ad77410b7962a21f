# SPDX-License-Identifier: Apache-2.0
"""Kiln as separate processes: they start, refuse, share runners, and are rolled under a load."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import threading

import pytest

import cluster
from harness import Client, PATIENCE, clean_env, program, wait_until

pytestmark = pytest.mark.skipif(any(u not in os.environ for u in cluster.URLS),
                                reason="needs the servers of tools/stack.sh")


def installed(process):
    """What /languages says; None where nobody has told yet."""
    answer = process.get("/languages").json["languages"]
    return {one["name"]: one["installed"] for one in answer}


@pytest.mark.parametrize("role", ["api", "scheduler"])
def test_roles_refuse_what_no_other_process_can_use(role):
    shared = {"store": "postgresql://kiln@127.0.0.1:1/kiln", "queue": "amqp://127.0.0.1:1/",
              "cache": "redis://127.0.0.1:1/0"}
    for key, url in (("store", "sqlite:/x.db"), ("queue", "memory:"), ("cache", "memory:")):
        args = [f"--{k}={v}" for k, v in (shared | {key: url}).items()]
        done = subprocess.run([program("kiln"), role, *args], env=clean_env(), text=True, check=False,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=PATIENCE)
        assert done.returncode == 1, done
        assert f'the {key} is "{url}"' in done.stderr and f"--{key}=" in done.stderr, done


def test_task_runs_through_every_replica_and_languages_are_told(make_cluster):
    c = make_cluster().wait_ready()
    for i in range(2):
        task = c.client(i).run("bash", f"echo {i}")
        assert task["stdout"] == f"{i}\n" and task["pod"] in ("r0", "r1")
        # Read at the other replica, which wakes at once where the result was made here.
        assert c.client(1 - i).result(task["task_id"])["stdout"] == f"{i}\n"
    for one in c.apis:
        wait_until(lambda one=one: installed(one)["bash"] is True, what="languages heard")
    late = c.api("late").wait_ready()
    wait_until(lambda: installed(late)["bash"] is True, what="languages heard by who came late")


def test_first_key_locks_every_replica_that_runs(make_cluster):
    c = make_cluster(schedulers=0, runners=0)
    for one in c.apis:
        wait_until(lambda one=one: answers(one), what="it listens")
        assert one.get("/tasks").status == 200
    key = c.kiln("keys", "add", "late", f"--store={c.store}").stdout.split()[-1]
    for one in c.apis:
        wait_until(lambda one=one: one.get("/tasks").status == 401, 10, what="locked")
        assert Client(one.port, key).get("/tasks").status == 200


@pytest.mark.parametrize("words", [("keys", "add", "x"), ("tenants", "set", "x", "rate=1"), ("api",),
                                   ("scheduler",), ("serve", "--listen=127.0.0.1:0")])
def test_nothing_but_migrate_makes_tables(make_cluster, words):
    c = make_cluster(apis=0, schedulers=0, runners=0)
    c.sql(f"DROP SCHEMA {c.name} CASCADE")
    c.sql(f"CREATE SCHEMA {c.name}")
    done = c.kiln(*words, *c.shared, f"--data-dir={c.directory}/d", check=False)
    assert done.returncode == 1 and "run `kiln migrate`" in done.stderr, done
    assert done.stdout == "", done
    assert "Made the schema" in c.kiln("migrate", f"--store={c.store}").stdout
    assert "nothing to do" in c.kiln("migrate", f"--store={c.store}").stdout


def test_log_names_the_role(make_cluster):
    c = make_cluster(apis=1, schedulers=1, runners=1)
    for process, role in ((c.apis[0], "api"), (c.schedulers[0], "scheduler")):
        wait_until(lambda process=process: answers(process), what="it listens")
        process.stop()
        said = {line["msg"]: line["component"] for line in map(json.loads, (
            text for text in process.log_text().splitlines() if text.startswith("{")))}
        assert said["shutting down"] == said["shut down"] == said["in use"] == role, said
        assert "serve" not in said.values(), said


def answers(process):
    try:
        return process.get("/healthz").status == 200
    except OSError:
        return False


def test_unreachable_and_foreign_runners_are_named(make_cluster):
    c = make_cluster(apis=0, schedulers=0, runners=1)
    runner = c.runners[0]
    strange = c.write_secret("strange")
    cases = (
        (c.address(runner), strange, "another key"),
        (f"other@127.0.0.1:{runner.port}", c.secret_file, "another name"),
        ("gone@127.0.0.1:1", c.secret_file, "Connection refused"),
        ("lost@no-such-host.invalid:1", c.secret_file, "no-such-host.invalid"),
    )
    for i, (address, secret, reason) in enumerate(cases):
        scheduler = c.scheduler(f"s{i}", f"runners:{address}", secret)

        def told(scheduler=scheduler, reason=reason):
            try:
                answer = scheduler.get("/readyz")
            except OSError:
                return False
            return answer.status == 503 and reason in answer.json["detail"]
        wait_until(told, what=reason)
        assert "could not use a runner" in scheduler.log_text()


def test_wrong_secrets_are_refused_with_a_reason(make_cluster):
    c = make_cluster(apis=0, schedulers=0, runners=0)
    short = c.write_secret("short", "short\n")
    open_ = c.write_secret("open")
    os.chmod(open_, 0o644)
    for path, reason in ((short, "5 bytes"), (open_, "mode 644"), ("/nowhere", "No such file")):
        done = c.kiln("runner-key", "r1", "--secret-file", path, check=False)
        assert done.returncode == 1 and reason in done.stderr, done
        scheduler = c.scheduler(f"s-{os.path.basename(path)}", "runners:r1@127.0.0.1:1", path)
        assert scheduler.process.wait(PATIENCE) == 1
        assert reason in scheduler.log_text()


def test_schedulers_share_the_slots_of_one_runner(make_cluster):
    c = make_cluster(apis=1, runners=1, slots=1).wait_ready()
    ids = [c.client().submit("bash", f"sleep 0.2; echo {i}") for i in range(12)]
    assert [c.client().wait(t)["stdout"] for t in ids] == [f"{i}\n" for i in range(12)]
    assert all(c.client().result(t)["attempt"] == 1 for t in ids), "busy costs no attempt"


def test_strangers_at_a_runner_go_and_keep_nobody_out(make_cluster):
    c = make_cluster(apis=1, schedulers=1, runners=1).wait_ready()
    port = c.runners[0].port
    silent = [socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) for _ in range(150)]
    try:
        for garbage in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff" + bytes(70000), bytes(16)):
            with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as s:
                s.sendall(garbage)
                s.shutdown(socket.SHUT_WR)
                with contextlib.suppress(ConnectionError):
                    while s.recv(4096):
                        pass
        assert c.client().run("bash", "echo still here")["stdout"] == "still here\n"
        late = c.scheduler("late").wait_ready()  # also one that comes only now
        for s in silent:
            with contextlib.suppress(ConnectionResetError):
                assert s.recv(1) == b"", "nothing is told to who has not shown the key"
        c.schedulers[0].stop()
        assert c.client().run("bash", "echo and here")["stdout"] == "and here\n"
        late.stop()
    finally:
        for s in silent:
            s.close()
    log = c.runners[0].log_text().count("before it was greeted")
    assert 1 <= log < 30, "strangers do not fill the log"


def test_list_of_runners_is_read_again(make_cluster):
    c = make_cluster(apis=1, schedulers=0, runners=2)
    path = os.path.join(c.directory, "runners")

    def write(*runners):
        with open(path + ".new", "w", encoding="ascii") as f:
            f.write("# the fleet\n" + "".join(c.address(r) + "\n" for r in runners))
        os.rename(path + ".new", path)
    write(c.runners[0])
    scheduler = c.scheduler("s", f"runners:file={path}").wait_ready()
    c.apis[0].wait_ready()
    assert c.client().run("bash", "echo 1")["pod"] == "r0"
    held = c.client().submit("bash", "sleep 3; echo held")
    c.client().until_running(held)
    write(c.runners[1])
    scheduler.process.send_signal(signal.SIGHUP)
    wait_until(lambda: c.client().run("bash", "echo 2")["pod"] == "r1", what="the new runner is used")
    task = c.client().wait(held)
    assert (task["stdout"], task["pod"], task["attempt"]) == ("held\n", "r0", 1)
    with open(path, "w", encoding="ascii") as f:
        f.write("nonsense\n")
    scheduler.process.send_signal(signal.SIGHUP)
    wait_until(lambda: '\\"nonsense\\" is no runner' in scheduler.log_text(), what="told")
    assert c.client().run("bash", "echo 3")["pod"] == "r1"


def test_tasks_of_a_killed_scheduler_run_again_at_once(make_cluster):
    c = make_cluster(apis=1, runners=1, config=["--lease-ms=60s"]).wait_ready()
    ids = [c.client().submit("bash", "sleep 2; echo $$") for _ in range(2)]
    for task_id in ids:
        c.client().until_running(task_id)
    # The runner kills what it ran for the one that is gone, and tells the other: a lease would be
    # a minute. Whose the tasks are does not show, so both schedulers go, one after the other.
    for scheduler in c.schedulers:
        scheduler.kill()
        scheduler.start().wait_ready()
    tasks = [c.client().wait(t, 30) for t in ids]
    assert all(t["status"] == "done" and t["attempt"] >= 2 for t in tasks), tasks


class Load:
    """Submits without pause, through whatever API answers, and remembers each 201."""

    def __init__(self, c, threads=4):
        self.cluster, self.accepted, self.end = c, [], threading.Event()
        self.threads = [threading.Thread(target=self.work, args=(n,)) for n in range(threads)]
        for t in self.threads:
            t.start()

    def work(self, n):
        i = 0
        while not self.end.is_set():
            i += 1
            word = f"{n}-{i}"
            body = {"language": "bash", "code": f"sleep 0.0{i % 10}; echo {word}"}
            try:
                answer = self.cluster.client((n + i) % len(self.cluster.apis)).post("/submit", body,
                                                                                   timeout=30)
            except (OSError, http.client.HTTPException):
                self.end.wait(0.05)
                continue
            if answer.status == 201:
                self.accepted.append((answer.json["task_id"], word))
            else:
                assert answer.status in (429, 503), answer
                self.end.wait(0.05)

    def grow(self, by=40):
        want = len(self.accepted) + by
        wait_until(lambda: len(self.accepted) >= want, 120, what="the load goes on")

    def finish(self):
        self.end.set()
        for t in self.threads:
            t.join()
        return self.accepted


def test_rolling_every_process_under_load_loses_nothing(make_cluster):
    c = make_cluster().wait_ready()
    load = Load(c)
    for process in c.apis + c.schedulers + c.runners:
        load.grow()
        process.stop()
        load.grow(10)
        process.start()
        if process in c.runners:
            wait_until(lambda p=process: "runner is ready" in p.log_text()
                       .rpartition("draining")[2], what="the runner is back")
        else:
            process.wait_ready()
    load.grow()
    accepted = load.finish()
    assert len({t for t, _ in accepted}) == len(accepted) >= 300
    client = Client(c.apis[0].port)
    for task_id, word in accepted:
        task = client.wait(task_id, 120)
        assert (task["status"], task["stdout"]) == ("done", f"{word}\n"), task
        assert task["attempt"] == 1, f"an orderly end costs no attempt: {task}"


def test_task_longer_than_the_drain_time_survives_rolling_schedulers(make_cluster):
    """Each one that ends hands it back; that is no fault of the task, and uses up no attempt."""
    c = make_cluster(apis=1, runners=1, config=["--drain-ms=300ms"]).wait_ready()
    task_id = c.client().submit("bash", "sleep 8; echo through")
    for _ in range(2):
        for scheduler in c.schedulers:
            c.client().until_running(task_id)
            scheduler.stop()
            scheduler.start().wait_ready()
    task = c.client().wait(task_id, 60)
    assert (task["status"], task["stdout"], task["attempt"]) == ("done", "through\n", 1), task


def test_task_handed_back_by_the_only_scheduler_is_queued(make_cluster):
    """Not left to its lease: whoever comes next runs it at once."""
    c = make_cluster(apis=1, schedulers=1, runners=1,
                     config=["--drain-ms=300ms", "--lease-ms=60s"]).wait_ready()
    task_id = c.client().submit("bash", "sleep 3; echo through")
    c.client().until_running(task_id)
    c.schedulers[0].stop()
    assert c.client().result(task_id)["status"] == "queued"
    c.schedulers[0].start().wait_ready()
    task = c.client().wait(task_id, 30)
    assert (task["status"], task["stdout"], task["attempt"]) == ("done", "through\n", 1), task
