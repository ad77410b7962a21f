# SPDX-License-Identifier: Apache-2.0
"""Compilers that stay for many programs of a tenant: what they make is what a fresh one makes, nothing is left of one
program for the next, and they are one tenant's."""

import os
import signal
import subprocess
import time

import pytest

import runner as r
import test_standby
from test_standby import LIMITS, is_below, wait_for
from test_standby_compile import COMPILE, MAIN, RIGHT, WRONG, some, told

place = test_standby.place  # fixtures
start = test_standby.start

HELLO = "public class Main { public static void main(String[] a) { System.out.println(\"hello\"); } }"


def compilers(one):
    found = subprocess.run(["pgrep", "-f", "^/usr/bin/java .* KilnCompiler resident$"], check=False,
                           stdout=subprocess.PIPE, text=True).stdout.split()
    return {int(pid) for pid in found if is_below(int(pid), one.process.pid)}


def java(one, code=None, **task):
    return one.run("java", code, limits=LIMITS, **{"compile_limits": COMPILE} | task)


def resident_run(one, code=None, seconds=60, **task):
    """By a compiler that stays; the first times of a tenant are another's."""
    end = time.monotonic() + seconds
    while True:
        result = java(one, code, **task)
        if result.done["standby"] == "resident":
            return result
        assert time.monotonic() < end, (result.done, one.log_text())
        time.sleep(0.1)


@pytest.fixture(scope="module")
def shared(start):
    """Without a cache, so that everything is compiled."""
    one = start("--compile-cache-bytes", "0", "--standby-bytes", "1GiB", "--resident-compilers", "100000",
                languages=("java",), slots=2)
    resident_run(one, HELLO)
    return one


def files_of(files):
    return {"Main.java": MAIN.encode()} | {name: text.encode() if isinstance(text, str) else text
                                           for name, text in files.items()}


def only_sources(files):
    return all(name.endswith(".java") for name in files)


ALL = {**RIGHT, **{f"wrong: {name}": files for name, files in WRONG.items()}}


@pytest.mark.parametrize("name", some([name for name, files in ALL.items() if only_sources(files)]))
def test_programs_are_compiled_the_same(shared, name):
    """Twice in a row, so that nothing of the first is there for the second; all have one compiler, most likely."""
    task = {"files": files_of(ALL[name]), "entry": "Main.java"}
    cold = java(shared, cold=True, **task)
    for _ in range(2):
        warm = resident_run(shared, **task)
        assert told(cold) == told(warm)
        assert cold.stdout == warm.stdout and cold.runs.keys() == warm.runs.keys()


@pytest.mark.parametrize("name", [name for name, files in ALL.items() if not only_sources(files)])
def test_program_with_more_than_sources_has_another_compiler(shared, name):
    result = java(shared, files=files_of(ALL[name]), entry="Main.java")
    assert result.done["standby"] != "resident" and told(result)[0] == 0


PLUGIN = {
    "META-INF/services/com.sun.source.util.Plugin": b"Evil\n",
    "META-INF/services/javax.annotation.processing.Processor": b"Evil\n",
}
EVIL = """public class Evil implements com.sun.source.util.Plugin {
  public String getName() { return "Evil"; }
  public boolean autoStart() { return true; }
  public void init(com.sun.source.util.JavacTask task, String... args) { System.err.println("I RUN"); System.exit(0); } }"""


def evil_class(shared):
    """Of a plug-in that starts by itself."""
    code = """import java.nio.file.*; public class Main { public static void main(String[] a) throws Exception {
        System.out.write(Files.readAllBytes(Path.of("Evil.class"))); System.out.flush(); } }"""
    return java(shared, files={"Main.java": code.encode(), "Evil.java": EVIL.encode()}, entry="Main.java", cold=True).stdout


def test_code_that_a_compiler_would_execute_does_not_reach_one(shared):
    """A plug-in that comes as a class is run by javac itself, which is why it may come to a fresh one alone."""
    files = {"Main.java": HELLO.encode(), "Evil.class": evil_class(shared)} | PLUGIN
    for cold in (True, False, False, False):
        result = java(shared, files=files, entry="Main.java", cold=cold)
        assert result.done["standby"] != "resident"
        assert b"I RUN" in result.compiled["output"], told(result)
    # As sources alone they are not run by anybody.
    before = compilers(shared)
    result = resident_run(shared, files={"Main.java": HELLO.encode(), "Evil.java": EVIL.encode()}, entry="Main.java")
    assert result.stdout == b"hello\n" and compilers(shared) >= before


@pytest.mark.parametrize("name, content", [("@options.java", b"-version"), ("-Xlint.java", b""), ("-J-version.java", b"")])
def test_names_that_are_options_have_another_compiler(shared, name, content):
    task = {"files": {"Main.java": HELLO.encode(), name: content}, "entry": "Main.java"}
    cold, warm = java(shared, cold=True, **task), java(shared, **task)
    assert warm.done["standby"] != "resident" and told(cold) == told(warm)


def test_nothing_is_left_for_the_next_program(shared):
    """Neither a class, nor a source, nor a folder of the one before."""
    with_helper = {"Main.java": HELLO.encode(), "Helper.java": b"class Helper { static int x; }",
                   "p/Q.java": b"package p; public class Q { }"}
    uses = {"Main.java": b"public class Main { int x = Helper.x; p.Q q; public static void main(String[] a) { } }"}
    fails = {"Main.java": b"public class Main { int x = ; }", "Helper.java": b"class Helper { static int x; }"}
    for before in (with_helper, fails, with_helper):
        resident_run(shared, files=before, entry="Main.java")
        cold, warm = java(shared, files=uses, entry="Main.java", cold=True), resident_run(shared, files=uses, entry="Main.java")
        assert told(cold)[0] == 1 and told(cold) == told(warm)


@pytest.mark.parametrize("name, files", [
    ("many classes", {"A.java": "".join(f"class A{i} {{ }}\n" for i in range(400))}),
    ("many bytes", {f"A{i}.java": f"class A{i} {{ " + "".join(f'String s{j} = "{j}{"x" * 60000}"; ' for j in range(1)) + " ".join(
        f'String t{j} = "{i}.{j}.{"y" * 12000}";' for j in range(1)) + " }" for i in range(12)}),
    ("many words", {"A.java": "class A { " + "".join(f"int x{i} = {'y' * 900}{i}; " for i in range(90)) + "}"}),
])
def test_huge_ones_are_told_the_same(shared, name, files):
    task = {"files": files_of(files), "entry": "Main.java"}
    cold, warm = java(shared, cold=True, **task), java(shared, **task)
    assert told(cold) == told(warm) and cold.stdout == warm.stdout, name


def test_output_limit_is_the_tasks_own(shared):
    task = {"files": files_of(WRONG["more than a hundred"]), "entry": "Main.java", "compile_limits": COMPILE | {"output_bytes": 100}}
    cold, warm = java(shared, cold=True, **task), java(shared, **task)
    assert told(cold) == told(warm) and r.LIMITS[warm.compiled["limit_hit"]] == "output"
    assert resident_run(shared, HELLO).stdout == b"hello\n"


DEEP = {"A.java": "class A { int x = " + "(" * 20000 + "1" + ")" * 20000 + "; }"}
SLOW = {f"A{i}.java": f"class A{i} {{ " + " ".join(f"int f{j}(int x) {{ return x * {j} + {i}; }}" for j in range(2500)) + " }"
        for i in range(8)}
# Constants are folded: each is twice as long as the one before.
VAST = {"A.java": 'class A { static final String s0 = "' + "x" * 64 + '"' +
        "".join(f", s{i + 1} = s{i} + s{i}" for i in range(25)) + "; }"}


def test_one_that_breaks_the_compiler_costs_the_next_nothing(shared):
    task = {"files": files_of(DEEP), "entry": "Main.java"}
    resident_run(shared, HELLO)
    cold, warm = java(shared, cold=True, **task), java(shared, **task)
    assert told(cold)[0] == told(warm)[0] == 3 and b"StackOverflowError" in warm.compiled["output"]
    assert warm.done["standby"] != "resident"
    assert java(shared, HELLO).stdout == b"hello\n"


def test_time_is_the_steps(shared):
    limits = COMPILE | {"cpu_ms": 600}
    assert resident_run(shared, HELLO, compile_limits=limits).stdout == b"hello\n"
    seen = set()
    for _ in range(3):
        result = java(shared, files=files_of(SLOW), entry="Main.java", compile_limits=limits)
        assert r.LIMITS[result.compiled["limit_hit"]] == "cpu", told(result)
        assert 500_000 < result.compiled["usage"]["cpu_us"] < 3_000_000
        seen.add(result.done["standby"])
        resident_run(shared, HELLO, compile_limits=limits)
    assert "resident" in seen
    assert resident_run(shared, HELLO, compile_limits=limits).stdout == b"hello\n"


def test_memory_is_the_steps(shared):
    """One that does not fit is left to a fresh one, and the next has a compiler that lost nothing by it."""
    resident_run(shared, HELLO)
    task = {"files": files_of(VAST), "entry": "Main.java", "compile_limits": COMPILE | {"cpu_ms": 15000}}
    cold, warm = java(shared, cold=True, **task), java(shared, **task)
    assert told(cold)[:2] == told(warm)[:2] and told(cold)[:2] != (0, 0)
    assert b"OutOfMemoryError" in warm.compiled["output"] or told(warm)[1]
    assert resident_run(shared, HELLO).stdout == b"hello\n"


def test_usage_is_that_of_the_program(shared):
    usage = [resident_run(shared, HELLO).compiled["usage"] for _ in range(5)]
    assert all(0 < u["cpu_us"] < 2_000_000 and 0 < u["wall_us"] < 5_000_000 for u in usage), usage
    assert all(u["memory_bytes"] == -1 for u in usage), usage


def test_cancelled_task_ends_its_compiler(shared):
    """It is somewhere in a program that nobody waits for."""
    resident_run(shared, HELLO)
    task = shared.assign("java", files=files_of(SLOW), entry="Main.java", limits=LIMITS,
                         compile_limits=COMPILE)
    time.sleep(0.05)
    shared.connection.send("cancel", task=task)
    assert shared.wait(task).done["cancelled"]
    assert resident_run(shared, HELLO).stdout == b"hello\n"


def test_heartbeats_have_it(shared):
    resident_run(shared, HELLO)
    end = time.monotonic() + 20
    while True:
        shared.step()  # one comes every five seconds at least
        beat = shared.heartbeats[-1] if shared.heartbeats else {}
        (told,) = [w for w in beat.get("waiting", []) if w["compiles"]] or [{"ready": 0}]
        if told["ready"] >= len(compilers(shared)) > 0:
            break
        assert time.monotonic() < end, shared.heartbeats
    assert told["language"] == "java" and told["memory_bytes"] > 10 << 20


def test_it_is_one_tenants(start):
    one = start("--compile-cache-bytes", "0", "--standby-bytes", "1GiB", "--resident-compilers", "1000", languages=("java",), slots=2)
    resident_run(one, HELLO, tenant="a")
    of_a = compilers(one)
    assert len(of_a) == 1
    # However idle it is: the next tenant's first programs have another, and then one that was made for it.
    result = java(one, HELLO, tenant="b")
    assert result.done["standby"] != "resident" and compilers(one) == of_a
    resident_run(one, HELLO, tenant="b")
    of_b = compilers(one) - of_a
    assert of_b and of_a <= compilers(one)
    # What is compiled for one ends with its own.
    for pid in of_a:
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: compilers(one) == of_b)
    assert java(one, HELLO, tenant="a").done["standby"] != "resident"
    assert java(one, HELLO, tenant="b").done["standby"] == "resident"


def test_other_tenants_make_way(start):
    """There is room for one."""
    one = start("--compile-cache-bytes", "0", "--standby-bytes", "200MiB", "--resident-compilers", "1000", languages=("java",), slots=1)
    resident_run(one, HELLO, tenant="a")
    of_a = compilers(one)
    java(one, HELLO, tenant="b")
    java(one, HELLO, tenant="b")
    time.sleep(2.1)
    resident_run(one, HELLO, tenant="b")
    assert len(compilers(one)) == 1 and compilers(one) != of_a


def test_it_has_its_number_of_programs(start):
    one = start("--compile-cache-bytes", "0", "--standby-bytes", "1GiB", "--resident-compilers", "3", languages=("java",), slots=1)
    seen = set()
    for _ in range(9):
        resident_run(one, HELLO)
        seen |= compilers(one)
    assert len(seen) >= 3


def test_none_where_none_is_wanted(start):
    for args in ((), ("--resident-compilers", "5", "--standby-bytes", "0"), ("--resident-compilers", "0")):
        one = start("--compile-cache-bytes", "0", *args, languages=("java",), slots=1)
        for _ in range(4):
            assert java(one, HELLO).done["standby"] != "resident"
        assert not compilers(one)


def test_cached_program_was_made_by_any(start):
    one = start("--standby-bytes", "1GiB", "--resident-compilers", "100", languages=("java",), slots=2)
    for i in range(20):
        code = f"// {i}\n{HELLO}"
        if java(one, code).done["standby"] == "resident":
            break
        time.sleep(0.2)
    again = java(one, code)
    assert again.compiled["cached"] and again.done["standby"] != "resident" and again.stdout == b"hello\n"
