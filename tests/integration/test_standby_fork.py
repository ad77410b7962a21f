# SPDX-License-Identifier: Apache-2.0
"""Tasks that are forked of an interpreter: every program does the same with and without, and what
each of them can see of others."""

import os
import re
import shutil
import signal
import tempfile
import time

import pytest

import python_programs
import ruby_programs
import runner as r

ROOT = os.geteuid() == 0
MIB = 1 << 20
PROGRAMS = {"python": python_programs, "ruby": ruby_programs}
LIMITS = {"memory_bytes": 256 * MIB, "processes": 64, "cpu_ms": 10000, "wall_ms": 20000}


def runner(*args, **more):
    user = ("--user", "64777:64777") if ROOT else ()
    return r.Runner("--fork-bytes", str(512 * MIB), *user, *args,
                    languages=r.copy_languages(*PROGRAMS), **more)


def close(one):
    if one.process.poll() is None:
        log = one.log_text()
        assert one.close() == 0, log
    shutil.rmtree(one.languages_dir)


@pytest.fixture(scope="module")
def shared():
    one = runner(slots=2)
    yield one
    close(one)


@pytest.fixture
def start():
    started = []

    def make(*args, **more):
        started.append(runner(*args, **more))
        return started[-1]

    yield make
    for one in started:
        close(one)


def forked(one, code, seconds=30, language="python", **more):
    """Until a fork had it: an interpreter starts when it is asked for first."""
    end = time.monotonic() + seconds
    while True:
        result = one.run(language, code, **more)
        if result.done["standby"] == "fork":
            return result
        assert time.monotonic() < end, (result.done, one.log_text())
        time.sleep(0.1)


def normal(text):
    """Without what differs from run to run anyway: addresses, random names, process ids, the hash
    seed's order of what is killed first."""
    return re.sub(rb"0x[0-9a-f]+|tmp[-_][a-z0-9_]+|psm_[0-9a-f]+|socket:\[\d+\]|\bpid=\d+|Killed\n|in \d+\.\d+s",
                  b"", text)


def seen(result):
    return (result.run["outcome"], result.run["exit_code"], result.run["signal"],
            result.run["limit_hit"], normal(result.stdout), normal(result.stderr))


@pytest.mark.parametrize("language,name", [(language, name) for language, programs in PROGRAMS.items()
                                           for name in programs.PROGRAMS])
def test_is_the_same(shared, language, name):
    programs = PROGRAMS[language]
    code = programs.PROGRAMS[name]
    task = {"files": programs.FILES, "stdin": "one\ntwó\n".encode(), "args": ["a", "b c", ""],
            "limits": LIMITS | programs.LIMITS.get(name, {})}
    cold = shared.run(language, code, cold=True, **task)
    assert cold.done["standby"] in ("sandbox", "none")
    assert seen(cold) == seen(forked(shared, code, language=language, **task))


def test_heartbeats_and_accounts_have_the_forks_that_wait(start):
    one = start(slots=2)
    forked(one, "print(1)")
    end = time.monotonic() + 20
    waiting = []
    while [w["ready"] for w in waiting] != [2]:
        assert time.monotonic() < end, one.heartbeats
        one.step()  # one comes every five seconds at least
        beat = one.heartbeats[-1] if one.heartbeats else {"waiting": []}
        waiting = [w for w in beat["waiting"] if w["language"] == "python" and not w["compiles"]]
    # Each counts for itself, and the interpreter for some.
    assert 2 * 3 * MIB < beat["standby_used_bytes"] <= beat["standby_budget_bytes"] == 512 * MIB
    # Measured, a fork has but what it wrote to; else what the language's file says.
    (told,) = waiting
    assert 0 < told["memory_bytes"] < 2 * 3 * MIB if told["measured"] else told["memory_bytes"] == 2 * 3 * MIB
    os.kill(one.process.pid, signal.SIGUSR1)
    while '"account"' not in one.log_text():
        assert time.monotonic() < end
        time.sleep(0.05)
    pids = re.findall(r'"stands by","language":"python","step":"run","state":"ready","box":\d+,"init_pid":(\d+)',
                      one.log_text())
    assert len(set(pids)) == 2 and '"standbys":2' in one.log_text()
    for pid in pids:
        with open(f"/proc/{pid}/comm", encoding="ascii") as f:
            assert f.read().startswith("python3")


# ---- who shares what ----

SEED = "print(hash('a text'), hash('another'))"
SEEDS = {"python": SEED, "ruby": "p 'a text'.hash, 'another'.hash"}


@pytest.mark.parametrize("language", list(SEEDS))
def test_tenants_have_interpreters_of_their_own(shared, language):
    first, second = ({forked(shared, SEEDS[language], language=language, tenant=tenant).stdout for _ in range(3)}
                     for tenant in (f"one {language}", f"two {language}"))
    assert len(first) == len(second) == 1 and first != second


def test_another_takes_its_place_after_so_many_tasks(start):
    one = start("--fork-tasks", "20", slots=2)
    seeds = [forked(one, SEED).stdout for _ in range(80)]
    assert 2 <= len(set(seeds)) <= 6
    # One after the other: none comes back.
    assert len([1 for a, b in zip(seeds, seeds[1:]) if a != b]) == len(set(seeds)) - 1


def test_another_takes_its_place_where_there_is_no_room_for_two(start):
    # What one takes: the interpreter, which counts as three, and two that wait.
    one = start("--fork-tasks", "20", "--fork-bytes", str((3 + 2) * 3 * MIB), slots=2)
    seeds = [forked(one, SEED).stdout for _ in range(60)]
    assert 2 <= len(set(seeds)) <= 6


RANDOM = {
    "python": "import random, uuid, os, secrets, tempfile\n"
              "print(random.random(), uuid.uuid4(), os.urandom(8).hex(), secrets.token_hex(4), tempfile.mktemp())",
    "ruby": "require 'securerandom'\nputs rand, Random.new.rand, Random.rand, [*0..999].shuffle.first(4).join, "
            "SecureRandom.hex, Random.new_seed",
}


@pytest.mark.parametrize("language", list(RANDOM))
def test_randomness_is_not_shared(shared, language):
    found = [forked(shared, RANDOM[language], language=language).stdout.split() for _ in range(6)]
    for values in zip(*found):
        assert len(set(values)) == 6


def test_nothing_of_a_task_is_in_the_next(shared):
    scan = """
import re
found = set()
with open('/proc/self/maps') as f, open('/proc/self/mem', 'rb', 0) as m:
    for line in f:
        ends, rights = line.split()[:2]
        a, b = (int(x, 16) for x in ends.split('-'))
        if 'r' not in rights:
            continue
        try:
            m.seek(a)
            found |= set(re.findall(rb'sec' + rb'ret-[0-9a-f]{32}', m.read(b - a)))
        except (OSError, ValueError, OverflowError):
            pass
print(len(found))
"""
    secret = "secret-" + os.urandom(16).hex()
    seen_by_itself = forked(shared, f"x = '{secret}'\n" + scan)
    assert seen_by_itself.stdout == b"1\n", "the scan finds what is there"
    for _ in range(6):
        forked(shared, "import sys; print(len(sys.stdin.read()))", stdin=secret, args=[secret],
               files={"a.txt": secret.encode()})
        assert forked(shared, scan).stdout == b"0\n"


# ---- who has one ----

def test_cold_task_and_other_entry_have_none(shared):
    forked(shared, "print(1)")
    assert shared.run("python", "print(1)", cold=True).done["standby"] != "fork"
    other = shared.run("python", "print(__file__)", entry="own.py")
    assert other.done["standby"] != "fork" and other.stdout == b"/box/own.py\n"


@pytest.mark.parametrize("language,code,limit", [
    ("ruby", "$n = 0\ndef f = ($n += 1; [2, 1].sort { f })\nbegin; f; rescue SystemStackError; p $n / 100; end",
     {"stack_bytes": 1 * MIB}),
    ("ruby", "p 1", {"open_files": 8}),
    ("python", "print(open('main.py').fileno())", {"open_files": 8}),
])
def test_limits_that_an_interpreter_exceeds_have_none(shared, language, code, limit):
    forked(shared, "", language=language)
    small = shared.run(language, code, limits=LIMITS | limit)
    assert small.done["standby"] != "fork" and small.outcome == "ok"
    assert seen(small) == seen(shared.run(language, code, limits=LIMITS | limit, cold=True))


def test_each_of_several_runs_is_a_fork(shared):
    forked(shared, "print(1)")
    runs = [{"args": [str(i)], "stdin": b"%d" % i, "limits": LIMITS} for i in range(4)]
    code = "import os, sys; print(sys.argv[1:], input(), os.path.exists('mark')); open('mark', 'w').close()"
    result = shared.run("python", code, runs=runs)
    assert result.done["standby"] == "fork"
    for i in range(4):
        assert result.outputs[i, r.STDOUT] == b"['%d'] %d False\n" % (i, i)


def test_budget_that_is_too_small_has_none(start):
    one = start("--fork-bytes", str(8 * MIB), slots=2)
    for _ in range(5):
        assert one.run("python", "print(1)").done["standby"] != "fork"
        time.sleep(0.1)


# ---- what dies ----

def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as f:
        return [int(p) for p in f.read().split()]


def comm(pid):
    try:
        with open(f"/proc/{pid}/comm", encoding="ascii") as f:
            return f.read().strip()
    except OSError:
        return None


def interpreters(one):
    """That tasks are forked of: children of the keeper, which is the runner's second program."""
    keepers = [p for p in children(one.process.pid) if comm(p) == "kiln-sandbox"][1:]
    return [p for keeper in keepers for p in children(keeper) if comm(p) == "python3"]


def wait_for(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_killed_interpreter_is_replaced(start):
    one = start(slots=2)
    seed = forked(one, SEED).stdout
    for pid in interpreters(one):
        os.kill(pid, signal.SIGKILL)
    # What was waiting is gone with it; tasks go on.
    assert {one.run("python", "print(1)").outcome for _ in range(5)} == {"ok"}
    assert forked(one, SEED).stdout != seed


def test_stopped_interpreter_costs_no_task(start):
    one = start("--fork-tasks", "10", slots=2)
    forked(one, "print(1)")
    (pid,) = interpreters(one)
    os.kill(pid, signal.SIGSTOP)
    try:
        task = one.assign("python", "print(5)", limits=LIMITS)
        time.sleep(0.3)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert one.wait(task).stdout == b"5\n"


def test_nothing_is_left_of_a_killed_runner():
    one = runner(slots=2)
    forked(one, "print(1)")
    # And one that runs.
    one.assign("python", "import time; time.sleep(60)", limits=LIMITS | {"wall_ms": 60000})
    time.sleep(0.5)
    below, rest = [], [one.process.pid]
    while rest:
        found = children(rest.pop())
        below += found
        rest += found
    names = {pid: comm(pid) for pid in below}
    assert sorted(set(names.values())) == ["kiln-sandbox", "python3"]
    one.process.kill()
    one.process.wait()
    wait_for(lambda: not any(comm(pid) == name for pid, name in names.items()))
    one.connection.close()
    shutil.rmtree(one.languages_dir)


@pytest.mark.skipif(not ROOT, reason="needs root, to be somebody else")
@pytest.mark.parametrize("language,code", [("python", "import os; print(os.getuid())"), ("ruby", "p Process.uid")])
def test_ordinary_user_has_them_too(language, code):
    languages = r.copy_languages(language)
    become = ("setpriv", "--reuid", "64779", "--regid", "64779", "--clear-groups")
    one = r.Runner("--fork-bytes", str(512 * MIB), languages=languages, slots=2, prefix=become)
    assert forked(one, code, language=language).stdout == b"1000\n"
    assert one.close() == 0
    shutil.rmtree(languages)


@pytest.mark.skipif(not ROOT, reason="needs root: the runner becomes somebody else")
def test_languages_that_only_root_can_reach_have_no_forks(tmp_path):
    os.chmod(tmp_path, 0o700)
    languages = shutil.move(r.copy_languages("python"), tmp_path / "languages")
    one = r.Runner("--fork-bytes", str(512 * MIB), "--user", "64777:64777", languages=str(languages), slots=2)
    for _ in range(3):
        result = one.run("python", "print(1)")
        assert result.stdout == b"1\n" and result.done["standby"] != "fork"
        time.sleep(0.1)
    assert "no tasks are forked of interpreters" in one.log_text() and "Permission denied" in one.log_text()
    assert one.close() == 0
