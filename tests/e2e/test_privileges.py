# SPDX-License-Identifier: Apache-2.0
"""Who runs as whom: root is dropped, and an ordinary user can run everything too."""

import os
import tempfile

import pytest

import harness
from harness import NOBODY
from programs import HELLO, LANGUAGES

root_only = pytest.mark.skipif(os.getuid() != 0, reason="needs root: switches users")


def status(pid):
    with open(f"/proc/{pid}/status", encoding="utf-8") as f:
        return dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line)


@root_only
def test_roles_are_not_root(server):
    task_id = server.submit("python", "import time\ntime.sleep(3)")
    server.until_running(task_id)
    kiln, runners = server.pids("kiln"), server.pids("kiln-runner")
    assert kiln and runners
    listening = [p for p in kiln if status(p)["Uid"].split()[1] != "0"]
    assert listening, "the role that talks to the network is root"
    for pid in (*listening, *runners):
        told = status(pid)
        assert "0" not in told["Uid"].split(), (pid, told["Uid"])
        assert int(told["CapEff"], 16) == int(told["CapPrm"], 16) == 0, (pid, told["CapEff"])
        assert told["NoNewPrivs"] == "1" or pid in listening
    assert not {status(p)["Uid"] for p in listening} & {status(p)["Uid"] for p in runners}
    spawners = server.spawners()
    assert spawners
    full = int(status(os.getpid())["CapEff"], 16)
    for pid in spawners:
        assert int(status(pid)["CapEff"], 16) != full, "the spawner kept every capability"
    server.wait(task_id)


@root_only
def test_task_has_a_host_id_of_its_own(make_server):
    server = make_server(slots=2)
    marker = "3.25"
    ids = [server.submit("bash", f"sleep {marker}") for _ in range(2)]
    for i in ids:
        server.until_running(i)

    def sleepers():
        found = []
        for pid in server.tree():
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as f:
                    if f.read().split(b"\0")[:2][-1] == marker.encode():
                        found.append(pid)
            except OSError:
                pass
        return found if len(found) == 2 else None
    pids = harness.wait_until(sleepers, what="both sleeps")
    uids = {status(p)["Uid"] for p in pids}
    assert len(uids) == 2, "two slots share a host id"
    for pid in pids:
        told = status(pid)
        assert "0" not in told["Uid"].split()
        assert int(told["CapEff"], 16) == 0 and int(told["CapBnd"], 16) == 0, told["CapBnd"]
        assert told["NoNewPrivs"] == "1"
        assert told["Seccomp"] == "2"
    for i in ids:
        server.wait(i)


@root_only
def test_data_folder_belongs_to_the_server(make_server):
    server = make_server()
    owners = {os.stat(os.path.join(server.data, f)).st_uid for f in os.listdir(server.data)}
    assert owners and 0 not in owners, owners
    modes = {oct(os.stat(os.path.join(server.data, f)).st_mode & 0o077) for f in os.listdir(server.data)}
    assert modes == {"0o0"}, modes


@pytest.fixture(scope="module")
def ordinary(scratch):
    """A server started by an ordinary user, without anything that root could give it."""
    directory = os.path.join(scratch, "ordinary")
    os.mkdir(directory, 0o755)
    server = harness.Server(directory, slots=2, user=NOBODY if os.getuid() == 0 else None).start()
    yield server
    server.close()


@pytest.mark.parametrize("language", LANGUAGES)
def test_ordinary_user_runs_every_language(ordinary, language):
    task = ordinary.run(language, HELLO[language])
    assert (task["outcome"], task["stdout"]) == ("ok", "hello\n"), task
    assert task["isolation"]["namespaces"] is True
    assert task["isolation"]["seccomp"] is True


def test_ordinary_user_is_told_of_weaker_limits(ordinary):
    task = ordinary.run("bash", "true")
    cgroups_writable = os.getuid() != 0 and task["isolation"]["limits"] != "rlimit"
    if not cgroups_writable:
        assert task["isolation"]["limits"] == "rlimit", task["isolation"]


def test_ordinary_user_limits_hold(ordinary):
    task = ordinary.run("c", "int main(void) { for (;;) ; }", limits={"cpu_ms": 500, "wall_ms": 20000})
    assert (task["outcome"], task["limit_hit"]) == ("time_limit", "cpu_ms"), task
    task = ordinary.run("bash", "sleep 30", limits={"wall_ms": 700})
    assert (task["outcome"], task["limit_hit"]) == ("time_limit", "wall_ms"), task
    task = ordinary.run("bash", "yes", limits={"output_bytes": 1000})
    assert task["outcome"] == "output_limit", task
    code = "import time\nx = bytearray(600 << 20)\ntime.sleep(3)"
    task = ordinary.run("python", code, limits={"memory_bytes": 100 << 20})
    assert (task["outcome"], task["limit_hit"]) == ("memory_limit", "memory_bytes"), task


def test_ordinary_users_tasks_see_only_themselves(ordinary):
    code = """
import os
print(os.path.exists("/root"), len([p for p in os.listdir("/proc") if p.isdigit()]) <= 3)
try:
    os.kill(1, 9)
    print("killed init")
except PermissionError:
    print("init is out of reach")
"""
    lines = ordinary.run("python", code)["stdout"].splitlines()
    assert lines[0] == "False True"


@pytest.mark.parametrize("user", [None, NOBODY])
def test_what_a_language_makes_beforehand_is_kept_by_its_runner(make_server, scratch, user):
    if user and os.getuid() != 0:
        pytest.skip("needs root: switches users")
    languages = tempfile.mkdtemp(dir=scratch)
    os.chmod(languages, 0o755)
    with open(os.path.join(languages, "odd.yaml"), "w", encoding="utf-8") as f:
        f.write("name: odd\nsource: main.odd\nversion: {argv: [/bin/true]}\n"
                "setup: {files: {given: made}, commands: [[/bin/cp, given, made]], produces: [made]}\n"
                "run: {argv: [/bin/cat, \"{entry}\", \"{setup}/made\"]}\n")
    server = make_server(start=False, user=user, args=("--languages", languages))
    folder = os.path.join(server.directory if user is None else server.data, "setup")
    server.env["KILN_SETUP_DIR"] = folder
    server.start()
    harness.wait_until(lambda: [name for name in os.listdir(folder) if name.startswith("odd-")],
                       what="what odd makes")
    harness.wait_until(lambda: server.run("odd", "code and ")["stdout"] == "code and made",
                       what="a task that finds it")
    runner = status(server.pids("kiln-runner")[0])["Uid"].split()[0]
    assert os.stat(folder).st_uid == int(runner)
