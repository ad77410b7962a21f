# SPDX-License-Identifier: Apache-2.0
"""A runner in a place where no namespaces can be made: one task, and the place ends with it."""

import os
import shutil
import subprocess
import tempfile

import place
import pytest
import runner as r

pytestmark = pytest.mark.skipif(place.reason_not(r.BUILD) is not None,
                                reason=str(place.reason_not(r.BUILD)))

# The leak check traces its own process, which is not dumpable there.
os.environ["ASAN_OPTIONS"] = os.environ.get("ASAN_OPTIONS", "") + ":detect_leaks=0"


@pytest.fixture(scope="module")
def languages():
    """Where the place has them too, and not in its /tmp."""
    folder = tempfile.mkdtemp(prefix="languages-", dir=r.BUILD)
    os.chmod(folder, 0o755)
    for name in ("python", "bash", "c"):
        shutil.copy(os.path.join(r.ROOT, "languages", name + ".yaml"), folder)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def start(tmp_path, languages):
    started = []

    def one(*args, **named):
        named.setdefault("slots", 1)
        named.setdefault("languages", languages)
        started.append(r.Runner(*args, prefix=place.prefix(tmp_path, r.BUILD), **named))
        return started[-1]

    yield one
    for each in started:
        each.connection.close()
        if each.process.poll() is None:
            each.process.kill()
        each.process.wait(20)


@pytest.fixture
def pod(start):
    return lambda *args, **named: start("--isolation", "pod", *args, **named)


def test_detected_where_there_are_no_namespaces_and_told(start):
    one = start("--isolation", "auto", slots=4)
    isolation = one.hello["isolation"]
    assert isolation["level"] == "pod" and not isolation["namespaces"] and isolation["seccomp"]
    assert isolation["landlock"] >= 1
    assert one.hello["slots"] == 1, "one task, whatever was wished for"
    assert "no sandboxes can be made" in one.log_text()
    done = one.run("python", "print('hi')")
    assert done.outcome == "ok" and done.stdout == b"hi\n"


def test_one_task_and_then_the_runner_ends(pod):
    one = pod()
    assert one.run("bash", "echo one").stdout == b"one\n"
    assert one.wait_end() == 0
    assert one.heartbeats[-1]["slots"] == 0, "it says that it takes no more before it ends"


def test_second_task_at_once_is_busy(pod):
    one = pod()
    first = one.assign("bash", "read -t 2 line < /dev/zero; sleep 1; echo done")
    second = one.run("bash", "echo no")
    assert second.busy and not second.accepted
    assert one.wait(first).stdout == b"done\n"


def test_compile_and_run_are_one_task(pod):
    done = pod().run("c", '#include <stdio.h>\nint main(void) { puts("hello"); return 3; }')
    assert done.outcome == "runtime_error" and done.run["exit_code"] == 3
    assert done.stdout == b"hello\n"


@pytest.mark.parametrize("code, limit, outcome", [
    ("while True: pass", {"cpu_ms": 300}, "time_limit"),
    ("import time; time.sleep(60)", {"wall_ms": 300}, "time_limit"),
    ("x = bytearray(400 << 20); import time; time.sleep(60)", {"memory_bytes": 64 << 20},
     "memory_limit"),
    ("print('x' * (2 << 20))", {"output_bytes": 1000}, "output_limit"),
    # A grandchild in a session of its own, whose parent is gone.
    ("import os, signal\nif os.fork():\n os.wait()\n signal.pause()\nif os.fork():\n os._exit(0)\n"
     "os.setsid()\nsignal.pause()", {"wall_ms": 300}, "time_limit"),
])
def test_limits_hold(pod, code, limit, outcome):
    assert pod().run("python", code, limits=limit).outcome == outcome


# The bound on processes is that of all places together, and what they use together may meet the
# memory limit before the time is over.
@pytest.mark.alone
def test_fork_bomb_ends(pod):
    done = pod().run("python", "import os\nwhile True:\n try: os.fork()\n except OSError: pass",
                     limits={"wall_ms": 3000, "processes": 16})
    assert done.outcome in ("signalled", "time_limit", "memory_limit"), done.outcome


ATTACKS = {
    "secret": f"open('{place.SECRET}').read()",
    "runner's memory": "open('/proc/1/mem', 'rb').read(1)",
    "runner's environment": "open('/proc/1/environ', 'rb').read()",
    "runner's descriptors": "__import__('os').listdir('/proc/1/fd')",
    "spawner's memory": "open(f'/proc/{spawner}/mem', 'rb').read(1)",
    "write to /etc": "open('/etc/kiln-was-here', 'w')",
    "list of the root": "__import__('os').listdir('/')",
    "internet socket": "__import__('socket').socket()",
    "udp socket": "__import__('socket').socket(2, 2)",
    "netlink": "__import__('socket').socket(16, 3, 0)",
    "stop of the runner": "__import__('os').kill(1, 19)",
    "stop of the spawner": "__import__('os').kill(spawner, 19)",
    "limits of the runner": "__import__('resource').prlimit(1, 7, (0, 0))",
    "limits of the spawner": "__import__('resource').prlimit(spawner, 7, (0, 0))",
}
FIND = """import os
spawner = next(int(p) for p in os.listdir('/proc') if p.isdigit()
               and open(f'/proc/{p}/comm').read().startswith('kiln-sandbox'))
"""


def test_attacks_get_nothing(pod):
    code = FIND + f"for name, attack in {ATTACKS!r}.items():\n" + """
    try:
        eval(attack)
        print('ESCAPED', name)
    except (OSError, PermissionError, ValueError) as e:
        print('refused', name)
"""
    done = pod().run("python", code)
    lines = done.stdout.decode().splitlines()
    assert sorted(lines) == sorted(f"refused {name}" for name in ATTACKS), done.stderr


def test_kill_of_everything_takes_nobody_with_it_where_signals_are_scoped(pod):
    one = pod()
    if one.hello["isolation"]["landlock"] < 6:
        pytest.skip("this kernel does not keep signals in a domain (Linux 6.12)")
    done = one.run("python", FIND + """
import signal
for pid in (1, spawner, os.getppid(), -1):
    try:
        os.kill(pid, signal.SIGKILL)
        print('ESCAPED', pid)
    except OSError as e:
        print('refused')
""")
    assert done.stdout.decode().count("refused") >= 3 and b"ESCAPED 1" not in done.stdout
    assert done.done and one.wait_end() == 0


def test_what_an_earlier_box_left_is_gone(pod):
    """Runs of a task have boxes of their own, and one folder between them."""
    # Where the checkout is below /tmp, so it is in the place.
    given = {os.path.relpath(p, "/tmp").split("/")[0] for p in (r.ROOT, r.BUILD) if p.startswith("/tmp/")}
    look = f"import os, stat\nprint(sorted(os.listdir('/box')), [n for n in os.listdir('/tmp') if n not in {given!r}])\n"
    leave = ("os.makedirs('/box/a/b'); open('/box/a/b/c', 'w').close(); os.chmod('/box/a', 0)\n"
             "open('/tmp/d', 'w').close(); os.symlink('/etc', '/tmp/e')\n")
    one = pod()
    done = one.wait(one.assign("python", look + leave, runs=[{}, {}]))
    assert done.outputs[(0, r.STDOUT)] == done.outputs[(1, r.STDOUT)] == b"['main.py'] []\n", \
        done.outputs


def test_below_the_demanded_isolation_it_does_not_begin_and_says_why(start):
    one = start("--isolation", "auto", "--min-isolation", "userns", hello=False)
    assert one.process.wait(20) == 1
    assert "refusing to run programs below the demanded isolation: without userns" in one.log_text()


def test_sandbox_is_never_silently_less(start):
    one = start(hello=False)
    assert one.process.wait(20) == 1 and "could not make a user namespace" in one.log_text()


def test_setup_folder_and_pod_isolation_exclude_each_other(start):
    one = start("--isolation", "pod", "--setup-dir", "/tmp/setup", hello=False)
    assert one.process.wait(20) == 1 and "leave out --setup-dir" in one.log_text()


def test_probe_says_that_one_task_can_be_run_and_what_that_costs(tmp_path):
    done = subprocess.run([*place.prefix(tmp_path, r.BUILD), r.program("kiln-sandbox"), "probe"],
                          capture_output=True, text=True, timeout=30, check=False)
    said = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    assert done.returncode == 0, done
    assert said["isolation"] == "pod" and "could not make a user namespace" in said["sandbox"]
    assert "then the pod ends" in said["isolation.cost"] and "seccomp" in said["isolation.get"]
