# SPDX-License-Identifier: Apache-2.0
"""Many tasks that leave things behind, and a census of the host before and after; and the census itself,
which must see each kind of thing that could be left. Some hundred tasks by default, `make census` runs
ten thousand: KILN_HOSTILE_TASKS and KILN_HOSTILE_SEED say how many and which."""

import concurrent.futures
import contextlib
import ctypes
import os
import random
import signal
import socket
import subprocess
import sys
import time

import pytest

import census
import harness
import leavers
import standbys
from attack import MARK
from test_hostile import assert_equal, run_one, settled, warm

AT_A_TIME = 4
OPEN_FOR_STANDBY = 5  # three streams, what it is given, its sign
ROOT = pytest.mark.skipif(os.getuid() != 0, reason="needs root: the sandbox has ids of its own")


def test_nothing_is_left_after_many(server):
    count = int(os.environ.get("KILN_HOSTILE_TASKS", "600"))
    seed = int(os.environ.get("KILN_HOSTILE_SEED", random.SystemRandom().randrange(1 << 32)))
    print(f"KILN_HOSTILE_TASKS={count} KILN_HOSTILE_SEED={seed}")
    rng = random.Random(seed)
    warm(server)
    for one in leavers.QUICK + leavers.SLOW:  # what is made once per kind is made
        assert not run_one(server, one), run_one(server, one)
    before, spawners, runners = settled(server), server.spawners(), server.pids("kiln-runner")
    def holds():
        """Without what a runner has open for interpreters that stand by."""
        return {"spawners": (census.descriptors(spawners), census.memory_kib(spawners)),
                "runners": (census.descriptors(runners) - OPEN_FOR_STANDBY * census.standbys(server),
                            census.memory_kib(runners))}

    held = holds()
    start = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(AT_A_TIME) as pool:
        wrong = [w for found in pool.map(lambda one: run_one(server, one), leavers.mixed(count, rng))
                 for w in found]
    print(f"{count} tasks in {time.monotonic() - start:.0f} s, {len(wrong)} wrong")
    assert not wrong, "\n".join(wrong[:20])
    assert_equal(server, before)
    assert server.spawners() == spawners and server.pids("kiln-runner") == runners, "one had to be started again"
    now = holds()
    grown = {name: (now[name][0] - held[name][0], now[name][1] - held[name][1]) for name in now}
    print("more than before:", ", ".join(f"{name} {fds} descriptors, {kib} KiB"
                                         for name, (fds, kib) in grown.items()))
    # Of network namespaces in reserve, six descriptors each, whose number varies up to that of boxes, and
    # of boxes of interpreters that wait; a runner keeps what it compiled.
    assert grown["spawners"][0] < 120 and grown["spawners"][1] < 256
    assert grown["runners"][0] < 40 + count / 50 and grown["runners"][1] < 8192


# What could be left, one of each. A plant is a context that undoes it.

LIBC = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def as_task(code):
    """A process of another program's, with an id of a sandbox, as long as the context lasts."""
    child = subprocess.Popen([sys.executable, "-c", f"{code}\nprint(flush=True)\nimport time\ntime.sleep(60)"],
                             user=census.UID_BASE + 1, group=census.UID_BASE + 1, extra_groups=[],
                             stdout=subprocess.PIPE)
    child.stdout.readline()
    try:
        yield
    finally:
        child.kill()
        child.communicate()


def process(_):
    return as_task("pass")


@contextlib.contextmanager
def mount(server):
    path = os.path.join(server.directory, "planted")
    os.makedirs(path, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", MARK, path], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", path], check=True)
        os.rmdir(path)


def a_group(server):
    paths = [os.path.join(where, name) for where, names, _ in os.walk("/sys/fs/cgroup") for name in names
             if name.startswith("kiln-sandbox.") and name.split(".")[2:3] in [[str(p)] for p in server.spawners()]]
    return paths[0] if paths else "/sys/fs/cgroup"


@contextlib.contextmanager
def group(server):
    path = os.path.join(a_group(server), f"b{MARK}")
    os.mkdir(path)
    try:
        yield
    finally:
        os.rmdir(path)


@contextlib.contextmanager
def a_process_in(path):
    """One in a group, which is gone from it afterwards."""
    child = subprocess.Popen(["sleep", "60"])
    try:
        with open(os.path.join(path, "cgroup.procs"), "w", encoding="ascii") as f:
            f.write(str(child.pid))
        yield
    finally:
        child.kill()
        child.wait()
        harness.wait_until(lambda: str(child.pid) not in census.lines(os.path.join(path, "cgroup.procs")))


@contextlib.contextmanager
def live_group(server):
    """One with a process in it, which is none of the server's by its id or its parent."""
    path = os.path.join(a_group(server), f"b{MARK}")
    os.mkdir(path)
    try:
        with a_process_in(path):
            yield
    finally:
        os.rmdir(path)


@contextlib.contextmanager
def sysv(kind):
    get, control = getattr(LIBC, f"{kind}get"), getattr(LIBC, f"{kind}ctl")
    made = get(*{"shm": (0x4b494c4e, 4096, 0o1666), "sem": (0x4b494c4e, 1, 0o1666),
                 "msg": (0x4b494c4e, 0o1666)}[kind])
    assert made >= 0
    try:
        yield
    finally:
        control(*((made, 0, 0) if kind == "sem" else (made, 0, None)))


def key(_):
    """Of a task's user, in a keyring that goes with the process."""
    return as_task("import ctypes\nassert ctypes.CDLL(None).syscall(248, b'user', b'kiln-hostile', b'x', 1, "
                   "-2) > 0")


@contextlib.contextmanager
def abstract_socket(_):
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(f"\0{MARK}")
        yield


@contextlib.contextmanager
def file(_):
    path = f"/dev/shm/{MARK}-left"
    with open(path, "w", encoding="utf-8"):
        pass
    try:
        yield
    finally:
        os.unlink(path)


@contextlib.contextmanager
def lock(_):
    """Of a process that is gone: the description lives on in another one."""
    path = f"/tmp/{MARK}-test-lock"
    with open(path, "w", encoding="utf-8") as f:
        child = subprocess.run([sys.executable, "-c", f"import fcntl\nfcntl.flock({f.fileno()}, fcntl.LOCK_EX)"],
                               pass_fds=[f.fileno()], check=True)
        assert child.returncode == 0
        try:
            yield
        finally:
            os.unlink(path)


def an_interpreter(server):
    """One that stands by: (its sandbox's first process, itself)."""
    def found():
        table = harness.processes()
        return next(((table[p][0], p) for p in census.standing() if table.get(p, (0, "", ""))[1] != "kiln-sandbox" and
                     table[p][0] in table), None)

    wait_for_standby(server)
    return harness.wait_until(found, what="an interpreter that stands by")


def wait_for_standby(server):
    harness.wait_until(lambda: server.run("javascript", "0", limits=standbys.STANDBY)["isolation"]["standby"] == "exec",
                       every=0.3, what="a task in an interpreter that stood by")


@contextlib.contextmanager
def beside_a_standby(server):
    """A process in the sandbox of an interpreter that waits, whose parent is gone: as if it had left a child there."""
    init, _ = an_interpreter(server)
    code = f"import ctypes, os, time\nfd = os.open('/proc/{init}/ns/pid', os.O_RDONLY)\n" \
           "assert ctypes.CDLL(None).setns(fd, 0) == 0\n" \
           "if os.fork() == 0:\n    if os.fork() == 0: time.sleep(60)\n    os._exit(0)\nos.wait()\n"
    subprocess.run([sys.executable, "-c", code], check=True)
    left = harness.wait_until(lambda: [p for p, (parent, comm, _) in harness.processes().items()
                                       if parent == init and comm.startswith("python")], what="the one left behind")
    try:
        yield
    finally:
        for pid in left:
            os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def in_the_group_of_a_standby(server):
    _, pid = an_interpreter(server)
    groups = [line.rpartition(":")[2] for line in census.lines(f"/proc/{pid}/cgroup") if "kiln-sandbox." in line]
    path = next((os.path.join(where, name) for where, names, _ in os.walk("/sys/fs/cgroup") for name in names
                 if groups and os.path.join(where, name).endswith(groups[0])), None)
    if not path:
        pytest.skip("no control groups here")
    with a_process_in(path):
        yield


@contextlib.contextmanager
def looks_like_a_standby(server):
    """With the command of one and an id of a sandbox, but of no account."""
    _, pid = an_interpreter(server)
    with open(f"/proc/{pid}/cmdline", encoding="utf-8") as f:
        argv = f.read().split("\0")[:-1]
    child = subprocess.Popen(argv, executable=sys.executable, user=census.UID_BASE + 1, group=census.UID_BASE + 1,
                             extra_groups=[], stdin=subprocess.PIPE, env={"PYTHONINSPECT": "1"})
    try:
        yield
    finally:
        child.kill()
        child.communicate()


PLANTS = {
    "process beside a standby": beside_a_standby, "process in the group of a standby": in_the_group_of_a_standby,
    "process like a standby": looks_like_a_standby,
    "process": process, "mount": mount, "group": group, "group with a process": live_group,
    "shared memory": lambda _: sysv("shm"), "semaphore": lambda _: sysv("sem"),
    "message queue": lambda _: sysv("msg"), "key": key, "abstract socket": abstract_socket, "file": file,
    "lock": lock,
}


@ROOT
@pytest.mark.parametrize("name", PLANTS)
def test_census_sees(server, name):
    wait_for_standby(server)
    before = settled(server)
    with PLANTS[name](server):
        assert census.take(server) != before, "the census is blind"
    assert_equal(server, before)
