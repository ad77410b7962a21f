# SPDX-License-Identifier: Apache-2.0
"""Everything that can die is killed under load, and everything that can fill up is filled."""

import contextlib
import glob
import os
import signal
import socket
import subprocess
import threading
import time

import pytest

import harness
from harness import FINAL, Client, problem, wait_until

NAP = "import time\ntime.sleep({})\nprint('slept')"


def load(server, n, seconds=0.15):
    return [server.submit("python", NAP.format(seconds)) for _ in range(n)]


def expect_all_done(server, ids, attempts=(1, 2)):
    tasks = [server.wait(i, 90) for i in ids]
    for task in tasks:
        assert (task["status"], task["outcome"], task["stdout"]) == ("done", "ok", "slept\n"), task
        assert task["attempt"] in attempts, task
    return tasks


def finished(server, ids):
    return {i: t for i in ids for t in [server.result(i)] if t["status"] in FINAL}


def test_kill_of_everything_and_restart(make_server):
    server = make_server(slots=3)
    done_before = {i: server.wait(i) for i in load(server, 5, 0)}
    sleeper = server.submit("python", NAP.format(1.5))
    server.until_running(sleeper)
    queued = load(server, 30)
    wait_until(lambda: finished(server, queued[:3]), what="some of the load done")
    before = finished(server, queued)
    server.kill()
    server.start()
    for task_id, task in (done_before | before).items():
        assert server.result(task_id) == task
    tasks = expect_all_done(server, queued)
    assert server.wait(sleeper)["attempt"] == 2
    assert all(server.result(i) == t for i, t in before.items())
    assert {t["attempt"] for t in tasks} <= {1, 2}


def test_repeated_kills_lose_nothing(make_server):
    server = make_server(slots=2)
    ids = []
    for _ in range(3):
        ids += [server.submit("bash", "echo on") for _ in range(15)]
        time.sleep(0.2)
        server.kill()
        server.start()
    for i in ids:
        task = server.wait(i)
        # Three attempts, then Kiln says that it could not: a task is never just gone.
        assert task["status"] in ("done", "failed"), task
        assert task["status"] == "done" or task["attempt"] == 3, task
    assert sum(server.result(i)["status"] == "done" for i in ids) >= len(ids) - 6


def test_kill_in_the_middle_of_submissions(make_server):
    """What was answered 201 is there after the restart."""
    server = make_server(slots=2)
    accepted, stop = [], threading.Event()

    def submitter():
        client = Client(server.port)
        while not stop.is_set():
            try:
                accepted.append(client.submit("bash", "echo kept"))
            except (OSError, AssertionError, harness.http.client.HTTPException):
                return
    threads = [threading.Thread(target=submitter) for _ in range(8)]
    for t in threads:
        t.start()
    wait_until(lambda: len(accepted) > 60, what="load")
    server.kill()
    stop.set()
    for t in threads:
        t.join()
    server.start()
    for i in accepted:
        task = server.wait(i, 90)
        assert (task["status"], task["stdout"]) == ("done", "kept\n"), task


def is_first_of_a_box(pid):
    """By its number in the innermost of its pid namespaces, which are more than ours."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8") as f:
            numbers = next(line for line in f if line.startswith("NSpid:")).split()[1:]
    except OSError:
        return False
    return len(numbers) > 1 and numbers[-1] == "1"


@pytest.mark.parametrize("victim", ["roles", "kiln-runner", "kiln-sandbox", "init"])
def test_kill_of_one_role_under_load(make_server, victim):
    server = make_server(slots=3)
    ids = load(server, 40, 0.2)
    wait_until(lambda: finished(server, ids[:2]), what="some of the load done")
    if victim == "roles":  # API, scheduler and store; their keeper is the process that was started
        victims = [p for p in server.pids("kiln") if p != server.process.pid]
    elif victim == "kiln-runner":
        victims = server.pids(victim)
    elif victim == "init":  # pid 1 of each sandbox: those that run a task, and those that stand ready
        victims = [p for p in server.tree() if is_first_of_a_box(p)]
    else:  # the spawner, not the first process of each sandbox
        victims = server.spawners()
    assert victims
    server.kill(victims)
    server.wait_ready()
    tasks = expect_all_done(server, ids)
    assert any(t["attempt"] == 2 for t in tasks), [t["attempt"] for t in tasks]
    assert server.run("bash", "echo again")["stdout"] == "again\n"


def test_writing_to_who_has_gone_kills_nobody(make_server):
    """A peer that closes while it is written to is an error of that connection alone."""
    server = make_server(slots=1)
    before = server.pids("kiln")
    for pid in before + server.pids("kiln-runner"):
        os.kill(pid, signal.SIGPIPE)
    assert server.run("bash", "echo on")["stdout"] == "on\n"
    assert server.pids("kiln") == before


def test_sigterm_between_two_lives_of_the_server(make_server):
    """The keeper that is about to start the server again is told to end: it ends."""
    server = make_server(slots=1)

    def child():
        return [p for p in server.pids("kiln") if p != server.process.pid]
    for deaths in (1, 2):  # a second one while young: the keeper lets some time go by
        server.kill(wait_until(child, what="a server"))
        wait_until(lambda: server.log_text().count("starting it again") == deaths, what="the keeper to see it")
    server.stop(20)


def test_runner_that_dies_all_the_time_fails_the_task(make_server):
    server = make_server(slots=1)
    task_id = server.submit("python", NAP.format(20), limits={"wall_ms": 40000})
    for attempt in (1, 2, 3):
        wait_until(lambda: server.result(task_id)["status"] == "running" and
                   server.result(task_id)["attempt"] == attempt, what=f"attempt {attempt}")
        time.sleep(0.5)
        server.kill(server.pids("kiln-runner"))
    task = server.wait(task_id)
    assert (task["status"], task["attempt"]) == ("failed", 3), task
    assert task["error"]["code"], task
    assert server.run("bash", "echo on")["stdout"] == "on\n"


def test_stopped_runner_is_taken_for_dead(make_server):
    """SIGSTOP: the process is there but says nothing. Its tasks are run by another in the end."""
    server = make_server(slots=1)
    task_id = server.submit("python", NAP.format(1), limits={"wall_ms": 10000})
    server.until_running(task_id)
    for pid in server.pids("kiln-runner"):
        os.kill(pid, signal.SIGSTOP)
    task = server.wait(task_id, 120)
    assert (task["status"], task["outcome"], task["attempt"]) == ("done", "ok", 2), task


def test_machine_that_stood_still(make_server):
    """A paused machine, or a stopped container: nobody is silent, nobody's lease is over."""
    server = make_server(slots=2, config={"lease_ms": 1000})
    ids = load(server, 2, 4)
    for i in ids:
        server.until_running(i)
    pids = [p for p in server.tree() if p in harness.processes()]
    runners = server.pids("kiln-runner")
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(3.5)
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    expect_all_done(server, ids, attempts=(1,))
    assert server.pids("kiln-runner") == runners


def test_drain_on_sigterm(make_server):
    server = make_server(slots=2)
    running = [server.submit("python", NAP.format(1.5)) for _ in range(2)]
    for i in running:
        server.until_running(i)
    waiting = server.submit("python", NAP.format(0))
    waiter = []
    thread = threading.Thread(target=lambda: waiter.append(server.result(running[0], wait=20)))
    thread.start()
    time.sleep(0.3)
    server.process.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    # What is submitted now is stored like any other, and runs after the next start.
    late = server.submit("bash", "echo late")
    assert server.get("/readyz").status == 503
    assert server.process.wait(harness.PATIENCE) == 0, server.log_tail()
    server.process = None
    server.expect_nothing_left()
    thread.join()
    assert waiter and waiter[0]["status"] == "done", waiter
    server.start()
    for i in running:
        task = server.result(i)
        assert (task["status"], task["stdout"], task["attempt"]) == ("done", "slept\n", 1), task
    assert server.wait(waiting)["outcome"] == "ok"
    assert server.wait(late)["stdout"] == "late\n"


def test_restarts_use_up_no_attempt_of_a_long_task(make_server):
    """It outlasts drain_ms each time, and begins anew."""
    server = make_server(slots=1, config={"drain_ms": 200})
    task_id = server.submit("python", NAP.format(3))
    for _ in range(4):
        server.until_running(task_id)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(harness.PATIENCE) == 0, server.log_tail()
        server.start()
    task = server.wait(task_id, 60)
    assert (task["status"], task["stdout"], task["attempt"]) == ("done", "slept\n", 1), task


def test_second_server_on_the_same_data_is_refused(make_server):
    server = make_server()
    argv = [a.replace(str(server.port), str(harness.free_port())) for a in server.argv]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, check=False, timeout=harness.PATIENCE,
                          env=harness.clean_env())
    assert done.returncode not in (0, 99), done
    assert server.data in done.stdout, done.stdout
    assert server.run("bash", "echo on")["stdout"] == "on\n"


def test_address_in_use_is_said(make_server, scratch):
    server = make_server()
    done = subprocess.run([harness.program("kiln"), "serve", "--listen", f"127.0.0.1:{server.port}",
                           "--data-dir", scratch + "/in-use"], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, env=harness.clean_env(),
                          timeout=harness.PATIENCE)
    assert done.returncode not in (0, 99), done
    assert str(server.port) in done.stdout and "in use" in done.stdout, done.stdout
    server.expect_nothing_left()


def idle_groups(server):
    """Control groups that wait for the next use of a box."""
    return [g for pid in server.pids("kiln-sandbox")
            for g in glob.glob(f"/sys/fs/cgroup/**/kiln-sandbox.*.{pid}.*/b*", recursive=True)]


def test_groups_that_somebody_removes_are_made_again(make_server):
    """A tool that tidies up, or another spawner that takes ours for dead."""
    if os.getuid() != 0:
        pytest.skip("removing control groups needs root")
    server = make_server(slots=2)
    if server.run("bash", "true")["isolation"]["limits"] == "rlimit":
        pytest.skip("no control groups here")
    removed, end = [], threading.Event()

    def remove():
        while not end.is_set():
            for group in idle_groups(server):
                with contextlib.suppress(OSError):  # in use
                    os.rmdir(group)
                    removed.append(group)
    thread = threading.Thread(target=remove)
    thread.start()
    try:
        for _ in range(200):
            server.wait(server.submit("bash", "true"))
            if len(removed) >= 5:
                break
    finally:
        end.set()
        thread.join()
    assert removed, "none was ever idle"
    # What came to pass while they were removed may have failed; nothing does from here on.
    for _ in range(20):
        assert server.run("bash", "echo on")["stdout"] == "on\n"


@pytest.fixture
def small_disk(scratch):
    if os.getuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    path = os.path.join(scratch, "small-disk")
    os.makedirs(path)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m,mode=755", "kiln-test", path], check=True)
    yield path
    subprocess.run(["umount", "-l", path], check=True)
    os.rmdir(path)


def test_full_disk_is_503_and_passes_by_itself(make_server, small_disk):
    server = make_server(start=False)
    at = server.argv.index("--data-dir") + 1
    server.data = server.argv[at] = os.path.join(small_disk, "data")
    server.start()
    kept = server.submit("bash", "echo kept")
    server.wait(kept)
    ballast = os.path.join(small_disk, "ballast")
    with open(ballast, "wb", buffering=0) as f:
        try:
            while True:
                f.write(bytes(65536))
        except OSError:
            pass
    padding = "#" * 200_000
    answers = [server.post("/submit", {"language": "bash", "code": "true\n" + padding}) for _ in range(40)]
    assert {a.status for a in answers} <= {201, 503}, {a.status for a in answers}
    full = [a for a in answers if a.status == 503]
    assert full, "the disk did not get full"
    problem(full[0], 503)
    assert server.get("/healthz").status == 200
    for _ in range(4):  # and also when it was some time ago that a client wanted to write
        problem(server.get("/readyz"), 503, "the store cannot write", "disk is full")
        time.sleep(0.7)
    assert server.result(kept)["stdout"] == "kept\n"
    accepted = [a.json["task_id"] for a in answers if a.status == 201]
    os.unlink(ballast)
    wait_until(lambda: server.get("/readyz").status == 200, what="/readyz after room was made")
    assert server.run("bash", "echo again")["stdout"] == "again\n"
    for i in accepted:
        assert server.wait(i)["outcome"] == "ok"


def test_full_disk_for_longer_than_a_lease(make_server, small_disk):
    """Neither results nor leases can be written: what ran meanwhile is run again, and not forgotten."""
    server = make_server(start=False, slots=4, config={"lease_ms": 6000})
    at = server.argv.index("--data-dir") + 1
    server.data = server.argv[at] = os.path.join(small_disk, "data")
    server.start()
    ids = load(server, 4, 1.5)
    for i in ids:
        server.until_running(i)
    ballast = os.path.join(small_disk, "ballast")
    with open(ballast, "wb", buffering=0) as f:
        try:
            while True:
                f.write(bytes(65536))
        except OSError:
            pass
    padding = "#" * 400_000
    wait_until(lambda: server.post("/submit", {"language": "bash", "code": padding}).status == 503,
               what="a full disk")
    time.sleep(8)
    os.unlink(ballast)
    expect_all_done(server, ids)


def test_clients_that_take_all_descriptors(make_server):
    server = make_server(start=False, slots=1)
    server.argv = ["prlimit", "--nofile=100", *server.argv]
    server.start()
    clients = []
    for _ in range(150):
        clients.append(socket.create_connection(("127.0.0.1", server.port)))
        clients[-1].sendall(b"GET /hea")
    time.sleep(0.5)
    for c in clients:
        c.close()
    assert server.get("/healthz", timeout=10).status == 200
    assert server.run("bash", "echo on")["stdout"] == "on\n"


def test_retention_removes_finished_tasks_only(make_server):
    server = make_server(slots=1, config={"retention": "1s"})
    task_id = server.submit("bash", "echo gone soon")
    server.wait(task_id)
    blocker = server.submit("python", NAP.format(6))
    wait_until(lambda: server.get(f"/result/{task_id}").status == 404, what="retention")
    assert server.result(blocker)["status"] in ("queued", "running")
    assert task_id not in [t["task_id"] for t in server.get("/tasks").json["tasks"]]
