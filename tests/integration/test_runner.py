# SPDX-License-Identifier: Apache-2.0
"""The real kiln-runner with its spawner, spoken to as a scheduler does."""

import hashlib
import os
import re
import shutil
import signal
import struct
import subprocess
import time
import uuid

import pytest

import runner as r
import wire

MIB = 1 << 20
SANITIZED = "asan" in r.BUILD


@pytest.fixture(scope="module")
def shared():
    one = r.Runner("--log-level", "debug", slots=2)
    yield one
    log = one.log_text()
    assert one.close() == 0, log
    assert "ERROR: " not in log and "runtime error" not in log, log


@pytest.fixture
def start():
    """Starts runners of a test's own; each must have ended well by itself or end well now."""
    started = []

    def make(*args, **more):
        one = r.Runner(*args, **more)
        started.append(one)
        return one

    yield make
    for one in started:
        one.connection.close()
        try:
            one.process.wait(20)
        finally:
            one.process.kill()
            one.process.wait()
        log = one.log_text()
        assert one.process.returncode in (0, 3), log
        assert "ERROR: " not in log and "runtime error" not in log, log


def limits(**more):
    return more


# ---- HELLO ----


def test_hello_says_what_there_is(shared):
    hello = shared.hello
    assert hello["protocol"] == 1 and hello["slots"] == 2 and hello["name"] == "test"
    languages = {l["name"]: l for l in hello["languages"]}
    assert languages["python"]["installed"] and "3." in languages["python"]["version"]
    assert languages["c"]["installed"]
    isolation = hello["isolation"]
    assert isolation["level"] == "sandbox" and isolation["seccomp"] and isolation["namespaces"]
    assert isolation["limits"] in ("cgroup2", "cgroup1", "rlimit")


def test_language_whose_version_takes_too_long_is_there_all_the_same(start):
    """A host that is busy is no host without Bash."""
    languages = r.copy_languages("bash")
    path = os.path.join(languages, "bash.yaml")
    with open(path, encoding="utf-8") as f:
        text = f.read()
    with open(path, "w", encoding="utf-8") as f:
        f.write(text.replace("""'echo "$BASH_VERSION"'""", "'echo 1; exec sleep 60'"))
    one = start(languages=languages)
    assert one.hello["languages"][0]["installed"] and not one.hello["languages"][0].get("version")
    assert "took too long" in one.log_text()
    assert one.run("bash", "echo hello").stdout == b"hello\n"


# ---- outcomes ----

C_HELLO = '#include <stdio.h>\nint main(void) { puts("hello"); }\n'

OUTCOMES = [
    ("python ok", "python", "print('hello')", {}, "ok", {"stdout": b"hello\n"}),
    ("python stdin", "python", "print(input().upper())", {"stdin": b"abc\n"}, "ok",
     {"stdout": b"ABC\n"}),
    ("python args", "python", "import sys; print(sys.argv[1:])", {"args": ["a", "b c", ""]}, "ok",
     {"stdout": b"['a', 'b c', '']\n"}),
    ("python exit code", "python", "import sys; sys.exit(7)", {}, "runtime_error", {"exit_code": 7}),
    ("python stderr", "python", "import sys; sys.stderr.write('e'); print('o')", {}, "ok",
     {"stdout": b"o\n", "stderr": b"e"}),
    ("bash ok", "bash", "echo hello; echo bad >&2", {}, "ok",
     {"stdout": b"hello\n", "stderr": b"bad\n"}),
    ("c ok", "c", C_HELLO, {}, "ok", {"stdout": b"hello\n"}),
    ("c compile error", "c", "int main(void) { return x; }", {}, "compile_error", {}),
    ("c signal", "c", "int main(void) { *(volatile int *)8 = 1; }", {}, "signalled",
     {"signal": signal.SIGSEGV}),
    ("c abort", "c", "#include <stdlib.h>\nint main(void) { abort(); }", {}, "signalled",
     {"signal": signal.SIGABRT}),
    ("c kills itself", "c", "#include <signal.h>\nint main(void) { raise(SIGKILL); }", {},
     "signalled", {"signal": signal.SIGKILL}),
    ("cpu time", "python", "while True: pass", {"limits": limits(cpu_ms=300)}, "time_limit",
     {"limit_hit": "cpu"}),
    ("wall time", "python", "import time; time.sleep(60)", {"limits": limits(wall_ms=500)},
     "time_limit", {"limit_hit": "wall"}),
    ("memory", "python", "b = []\nwhile True: b.append(bytearray(b'x') * (1 << 20))",
     {"limits": limits(memory_bytes=64 * MIB)}, "memory_limit", {"limit_hit": "memory"}),
    ("output", "python", "while True: print('x' * 1000)", {"limits": limits(output_bytes=5000)},
     "output_limit", {"limit_hit": "output"}),
    ("output just over", "python", "print('x' * 1000, end='')",
     {"limits": limits(output_bytes=999)}, "output_limit", {"stdout": b"x" * 999}),
    ("output just fits", "python", "print('x' * 1000, end='')",
     {"limits": limits(output_bytes=1000)}, "ok", {"stdout": b"x" * 1000}),
    ("a child keeps the pipe", "bash", "sleep 60 & echo done", {}, "ok", {"stdout": b"done\n"}),
    ("stdin is not read", "python", "print(1)", {"stdin": b"x" * (3 * MIB)}, "ok",
     {"stdout": b"1\n"}),
    ("stdin is big", "python", "import sys; print(len(sys.stdin.buffer.read()))",
     {"stdin": b"x" * (3 * MIB)}, "ok", {"stdout": b"%d\n" % (3 * MIB)}),
    ("stdin is empty", "python", "import sys; print(repr(sys.stdin.read()))", {}, "ok",
     {"stdout": b"''\n"}),
    ("stdin is a pipe", "python",
     "import os, stat; print(stat.S_ISFIFO(os.fstat(0).st_mode), os.isatty(0))", {}, "ok",
     {"stdout": b"True False\n"}),
]


@pytest.mark.parametrize("language,code,more,outcome,expected", [o[1:] for o in OUTCOMES],
                         ids=[o[0] for o in OUTCOMES])
def test_outcome(shared, language, code, more, outcome, expected):
    if outcome == "memory_limit" and shared.hello["isolation"]["limits"] == "rlimit":
        expected = {}
    result = shared.run(language, code, **more)
    assert not result.done["error_code"], result.done
    assert result.outcome == outcome, (result.run if result.runs else result.compiled,
                                       result.stderr)
    for key, value in expected.items():
        if key in ("stdout", "stderr"):
            assert getattr(result, key) == value
        elif key == "limit_hit":
            assert r.LIMITS[result.run["limit_hit"]] == value
        else:
            assert result.run[key] == value


def test_java_with_classes(shared):
    code = """public class Main {
      static class Inner { int twice(int x) { return 2 * x; } }
      public static void main(String[] a) { System.out.println(new Inner().twice(21) + a[0]); }
    }"""
    result = shared.run("java", code, args=["!"], limits={"memory_bytes": 512 * MIB,
                                                          "processes": 128})
    assert result.outcome == "ok", (result.compiled, result.stderr)
    assert result.stdout == b"42!\n"


def test_compile_error_has_the_messages_and_no_run(shared):
    result = shared.run("c", "int main(void) { return missing; }")
    assert result.compiled["exit_code"] == 1
    assert b"missing" in result.compiled["output"] and not result.runs


def test_compile_warnings_come_with_success(shared):
    result = shared.run("c", '#warning "mind this"\nint main(void) { return 0; }')
    assert result.outcome == "ok" and b"mind this" in result.compiled["output"]


def test_compiler_that_takes_too_long_is_a_compile_error(shared):
    code = "template <int N> struct F { static const long v = F<N-1>::v + F<N-2>::v * N; };\n" \
           "#include <bits/stdc++.h>\n#include <regex>\nint main() { std::regex r(\"a\"); }"
    result = shared.run("cpp", code, compile_limits=limits(cpu_ms=50))
    assert result.outcome == "compile_error"
    assert r.LIMITS[result.compiled["limit_hit"]] == "cpu" and result.compiled["exit_code"] == -1


def test_compiler_that_says_too_much_is_cut(shared):
    code = "\n".join(f'#warning "number {i} of very many"' for i in range(3000)) + "\nint main(){}"
    result = shared.run("c", code, compile_limits=limits(output_bytes=10000))
    assert result.outcome == "compile_error"
    assert r.LIMITS[result.compiled["limit_hit"]] == "output"
    assert len(result.compiled["output"]) == 10000 and result.compiled["output_truncated"]


def test_compiled_usage_and_run_usage(shared):
    result = shared.run("c", f"/* {uuid.uuid4()} */" + C_HELLO)
    assert result.compiled["usage"]["cpu_us"] > 1000
    usage = result.run["usage"]
    assert 0 < usage["wall_us"] < 5_000_000 and usage["cpu_us"] < 2_000_000
    if shared.hello["isolation"]["limits"] != "rlimit":
        assert usage["memory_bytes"] > 0


def test_files_are_there_for_compiling_and_running(shared):
    files = {"lib/twice.h": b"static int twice(int x) { return 2 * x; }\n", "data.txt": b"data!\n"}
    code = '#include <stdio.h>\n#include "lib/twice.h"\nint main(void) { char b[9] = ""; ' \
           'FILE *f = fopen("data.txt", "r"); fgets(b, 9, f); printf("%d %s", twice(21), b); }'
    result = shared.run("c", code, files=files)
    assert result.outcome == "ok", result.compiled
    assert result.stdout == b"42 data!\n"


def test_environment_is_the_fixed_one(shared):
    result = shared.run("python", "import os; print(sorted(os.environ))")
    assert set(eval(result.stdout)) <= {"HOME", "LANG", "LC_CTYPE", "PATH", "TMPDIR", "PWD"}


def test_stdout_and_stderr_keep_their_order(shared):
    code = "import sys, time\nfor i in range(10):\n" \
           "  s = (sys.stdout, sys.stderr)[i % 2]\n  s.write(str(i)); s.flush(); time.sleep(0.02)"
    result = shared.run("python", code)
    assert b"".join(data for _, _, data in result.order) == b"0123456789"


def test_runs_follow_each_other_in_fresh_boxes(shared):
    code = "import os, sys\nprint(os.path.exists('mark'), sys.argv[1:], sys.stdin.read())\n" \
           "open('mark', 'w')\nsys.exit(len(sys.argv) - 1)"
    runs = [{"args": ["x"] * i, "stdin": str(i).encode(), "limits": {}} for i in range(5)]
    result = shared.run("python", code, runs=runs)
    assert len(result.runs) == 5
    for i in range(5):
        assert result.runs[i]["exit_code"] == i
        assert result.outputs[i, r.STDOUT] == b"False %s %d\n" % (str(["x"] * i).encode(), i)


def test_one_compile_for_many_runs(shared):
    code = "#include <stdio.h>\nint main(void) { int c = getchar(); putchar(c); return c == 'b'; }"
    result = shared.run("c", code, runs=[{"stdin": s, "limits": {}} for s in (b"a", b"b", b"c")])
    assert [result.runs[i]["exit_code"] for i in range(3)] == [0, 1, 0]
    assert [result.outputs[i, 0] for i in range(3)] == [b"a", b"b", b"c"]


def test_big_files_come_as_content(shared):
    blob = os.urandom(3 * MIB)
    code = "import hashlib; print(hashlib.sha256(open('blob', 'rb').read()).hexdigest())"
    result = shared.run("python", code, files={"blob": blob})
    assert result.stdout.decode().strip() == hashlib.sha256(blob).hexdigest()


# ---- the compile cache ----


def test_cache_keeps_successes_only(shared):
    good = f"/* {uuid.uuid4()} */\n{C_HELLO}"
    bad = f"/* {uuid.uuid4()} */\nint main(void) {{ return x; }}"
    cached = [bool(shared.run("c", good).compiled["cached"]) for _ in range(3)]
    assert cached == [False, True, True]
    for _ in range(2):
        assert not shared.run("c", bad).compiled["cached"]


def test_cached_build_runs_as_the_first_one(shared):
    code = f"/* {uuid.uuid4()} */\n#warning \"kept\"\n{C_HELLO}"
    first, second = shared.run("c", code), shared.run("c", code)
    assert not first.compiled["cached"] and second.compiled["cached"]
    assert first.compiled["output"] == second.compiled["output"]
    assert first.stdout == second.stdout == b"hello\n"
    assert second.compiled["usage"]["cpu_us"] == 0


def test_cache_is_by_tenant(shared):
    code = f"/* {uuid.uuid4()} */\n{C_HELLO}"
    assert not shared.run("c", code, tenant="a").compiled["cached"]
    assert not shared.run("c", code, tenant="b").compiled["cached"]
    assert shared.run("c", code, tenant="a").compiled["cached"]
    assert shared.run("c", code, tenant="b").compiled["cached"]


def test_cache_that_is_shared_serves_every_tenant(start):
    one = start("--share-compile-cache", slots=3)
    code = f"/* {uuid.uuid4()} */\n{C_HELLO}"
    tasks = [one.assign("c", code, tenant=name) for name in ("a", "b", "a")]
    results = [one.wait(t) for t in tasks]
    assert sorted(bool(x.compiled["cached"]) for x in results) == [False, True, True]
    last = one.run("c", code, tenant="d")
    assert last.compiled["cached"] and last.stdout == b"hello\n"
    assert not one.run("c", code + "/* */", tenant="d").compiled["cached"]


# Writes over itself, puts another program in its place, and looks for a descriptor that leads to
# the cache: what it says is what it managed.
CHANGES_ITSELF = r"""
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
int main(void) {
  FILE *mark = fopen("mark", "r");
  printf("mark %d\n", mark != NULL);
  mark = fopen("mark", "w");
  int self = open("main", O_RDWR);
  printf("busy %d\n", self < 0);
  int gone = unlink("main");
  int other = open("main", O_CREAT | O_WRONLY, 0755);
  int wrote = write(other, "#!/bin/sh\necho changed\n", 23);
  printf("replaced %d %d\n", gone, wrote);
  DIR *fds = opendir("/proc/self/fd");
  for (struct dirent *e; (e = readdir(fds));) {
    int fd = atoi(e->d_name);
    struct stat st;
    if (fd > 2 && fd != dirfd(fds) && fd != fileno(mark) && fd != other && !fstat(fd, &st))
      printf("descriptor %d of mode %o\n", fd, st.st_mode);
  }
}
"""


def test_program_cannot_change_what_is_cached(start):
    one = start("--share-compile-cache")
    expected = b"mark 0\nbusy 1\nreplaced 0 23\n"
    first = one.run("c", CHANGES_ITSELF, tenant="a")
    assert first.stdout == expected, first.compiled
    for tenant in ("a", "b"):
        again = one.run("c", CHANGES_ITSELF, tenant=tenant)
        assert again.compiled["cached"] and again.stdout == expected


def script_language(tool):
    """A folder of languages with "odd", whose compiler copies the script, and is said to be made of
    the file of that folder that is named: one that a test can change."""
    path = with_language("")
    with open(os.path.join(path, "odd.yaml"), "w", encoding="utf-8") as f:
        f.write("name: odd\ntitle: Odd\nextensions: [.odd]\nsource: main.odd\n"
                "version: {argv: [/bin/true]}\ninstall: {debian: coreutils}\n"
                "compile:\n  argv: [/bin/cp, main.odd, main]\n"
                f"  produces: [main]\n  toolchain: [{path}/{tool}]\n"
                "run: {argv: [/bin/sh, main]}\n")
    return path


def odd_is_cached(one):
    result = one.run("odd", "echo hi", entry="main.odd")
    assert result.stdout == b"hi\n"
    return bool(result.compiled["cached"])


def write_text(path, text):
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)


def test_compiler_that_is_upgraded_compiles_anew(start):
    path = script_language("cc1")
    tool = os.path.join(path, "cc1")
    write_text(tool, "version 1")
    before = os.stat(tool)
    one = start(languages=path)
    assert [odd_is_cached(one), odd_is_cached(one)] == [False, True]
    # As a package manager does it, with size and time as they were.
    write_text(tool + ".new", "version 2")
    os.utime(tool + ".new", ns=(before.st_atime_ns, before.st_mtime_ns))
    os.rename(tool + ".new", tool)
    assert [odd_is_cached(one), odd_is_cached(one)] == [False, True]
    assert "a toolchain is another than before" in one.log_text()
    os.unlink(tool)
    assert [odd_is_cached(one), odd_is_cached(one)] == [False, True]
    shutil.rmtree(path)


def test_toolchain_that_cannot_be_told_is_not_cached(start):
    # Below a file: an error for root as well.
    path = script_language("file/cc1")
    write_text(os.path.join(path, "file"), "")
    one = start(languages=path, slots=2)
    tasks = [one.assign("odd", "echo hi", entry="main.odd") for _ in range(2)]
    results = [one.wait(t) for t in tasks] + [one.run("odd", "echo hi", entry="main.odd")]
    assert [x.stdout for x in results] == [b"hi\n"] * 3
    assert not any(x.compiled["cached"] for x in results)
    assert one.log_text().count("a toolchain cannot be told") == 1
    os.unlink(os.path.join(path, "file"))
    assert [odd_is_cached(one), odd_is_cached(one)] == [False, True]
    shutil.rmtree(path)


def test_identical_compiles_at_once_are_done_once(start):
    one = start(slots=4)
    code = f"/* {uuid.uuid4()} */\n{C_HELLO}"
    tasks = [one.assign("c", code) for _ in range(4)]
    results = [one.wait(t) for t in tasks]
    assert sorted(bool(x.compiled["cached"]) for x in results) == [False, True, True, True]
    assert all(x.stdout == b"hello\n" for x in results)


def test_waiters_compile_when_the_leader_is_cancelled(start):
    one = start(slots=3)
    code = f"/* {uuid.uuid4()} */\n#include <bits/stdc++.h>\n#include <regex>\n" \
           "int main() { std::puts(\"done\"); }"
    tasks = [one.assign("cpp", code) for _ in range(3)]
    one.connection.send("cancel", task=tasks[0])
    results = [one.wait(t) for t in tasks]
    assert results[0].done["cancelled"] and not results[0].compiled
    assert [x.stdout for x in results[1:]] == [b"done\n"] * 2
    assert sorted(bool(x.compiled["cached"]) for x in results[1:]) == [False, True]


def test_identical_failing_compiles_at_once_all_fail(start):
    one = start(slots=3)
    code = f"/* {uuid.uuid4()} */\nint main(void) {{ return missing; }}"
    results = [one.wait(t) for t in [one.assign("c", code) for _ in range(3)]]
    assert all(x.outcome == "compile_error" and b"missing" in x.compiled["output"]
               for x in results)


def test_cache_of_no_bytes_keeps_nothing(start):
    one = start("--compile-cache-bytes", "0")
    for _ in range(2):
        assert not one.run("c", C_HELLO).compiled["cached"]


# ---- credit ----


def test_without_credit_the_program_waits(start):
    one = start(credit=1000)
    task = one.assign("python", "import sys\nsys.stdout.write('x' * 500000)",
                      limits={"output_bytes": MIB})
    result = one.tasks[task]
    with pytest.raises(TimeoutError):
        while True:
            one.step(1)
    assert len(result.stdout) == 1000 and not result.runs
    granted = 1000
    while granted < 499000:
        granted += 50000
        one.connection.send("credit", task=task, bytes=50000)
        while len(result.stdout) < min(granted, 500000):
            one.step()
        assert len(result.stdout) <= granted
    one.connection.send("credit", task=task, bytes=1 << 63)
    one.connection.send("credit", task=task, bytes=(1 << 64) - 1)
    one.wait(task)
    assert result.outcome == "ok" and result.stdout == b"x" * 500000


def test_cancel_without_credit_ends_the_task(start):
    one = start(credit=0)
    task = one.assign("python", "print('x' * 100000, flush=True)\nwhile True: pass")
    with pytest.raises(TimeoutError):
        while True:
            one.step(0.5)
    one.connection.send("cancel", task=task)
    assert one.wait(task).done["cancelled"] and one.tasks[task].stdout == b""


def test_scheduler_that_does_not_read_grows_nothing(start):
    one = start(slots=2, credit=1 << 40)
    before = one.rss_bytes()
    code = "import sys\nwhile True: sys.stdout.write('x' * 65536)"
    for _ in range(2):
        one.assign("python", code, limits={"output_bytes": 1 << 30, "wall_ms": 4000, "cpu_ms": 4000})
    time.sleep(3)
    assert one.rss_bytes() - before < (40 if SANITIZED else 6) * MIB


def test_many_small_chunks_to_one_that_does_not_read(start):
    one = start(slots=1, credit=1 << 40)
    before = one.rss_bytes()
    one.assign("c", "#include <unistd.h>\nint main(void) { for (;;) write(1, \"x\", 1); }",
               limits={"output_bytes": 1 << 30, "wall_ms": 4000, "cpu_ms": 4000})
    time.sleep(4)
    assert one.rss_bytes() - before < (60 if SANITIZED else 8) * MIB


# ---- cancel, lease, drain ----


def test_cancel_kills_and_keeps_what_there_was(shared):
    task = shared.assign("python", "print('begun', flush=True)\nwhile True: pass")
    while not shared.tasks[task].stdout:
        shared.step()
    begun = time.monotonic()
    shared.connection.send("cancel", task=task)
    result = shared.wait(task)
    assert result.done["cancelled"] and result.stdout == b"begun\n"
    # No verdict, but what it used.
    assert result.runs[0]["outcome"] == 0 and result.runs[0]["usage"]["wall_us"] > 0
    assert time.monotonic() - begun < 2


def test_cancel_while_compiling(shared):
    task = shared.assign("cpp", f"// {uuid.uuid4()}\n#include <regex>\nint main() {{}}")
    shared.step()
    shared.connection.send("cancel", task=task)
    result = shared.wait(task)
    assert result.done["cancelled"] and not result.compiled


def test_cancel_of_an_unknown_task_is_passed_over(shared):
    shared.connection.send("cancel", task=uuid.uuid4().bytes)
    shared.connection.send("credit", task=uuid.uuid4().bytes, bytes=5)
    shared.connection.send("content", task=uuid.uuid4().bytes, bytes=b"x")
    shared.connection.send("stdin", task=uuid.uuid4().bytes, bytes=b"x")
    shared.connection.send("signal", task=uuid.uuid4().bytes, signal=15)
    assert shared.run("bash", "echo hi").stdout == b"hi\n"


def test_busy_when_no_slot_is_free(shared):
    tasks = [shared.assign("bash", "sleep 0.5") for _ in range(2)]
    third = shared.assign("bash", "echo never")
    assert shared.wait(third).busy and not shared.tasks[third].accepted
    assert [shared.wait(t).outcome for t in tasks] == ["ok", "ok"]
    assert shared.run("bash", "echo now").stdout == b"now\n"


def test_lease_that_is_not_renewed_kills_the_tasks(start):
    one = start()
    task = one.assign("python", "while True: pass", lease_ms=700)
    begun = time.monotonic()
    result = one.wait(task)
    assert 0.6 < time.monotonic() - begun < 3
    assert result.done["error_code"] == "lease_expired" and not result.runs
    assert one.run("bash", "echo alive").stdout == b"alive\n"


def test_lease_that_is_renewed_keeps_the_tasks(start):
    one = start()
    task = one.assign("bash", "sleep 1.5; echo done", lease_ms=600)
    for _ in range(8):
        one.connection.send("renew", lease_ms=600)
        time.sleep(0.2)
    assert one.wait(task).stdout == b"done\n"


def test_drain_finishes_what_runs_and_ends(start):
    one = start()
    task = one.assign("bash", "sleep 0.5; echo done")
    one.step()
    one.connection.send("drain")
    late = one.assign("bash", "echo never")
    assert one.wait(late).busy
    assert one.wait(task).stdout == b"done\n"
    assert one.wait_end() == 0


def test_sigterm_drains(start):
    one = start()
    task = one.assign("bash", "sleep 0.5; echo done")
    one.step()
    one.process.terminate()
    assert one.wait(task).stdout == b"done\n"
    assert one.wait_end() == 0


def test_end_of_the_connection_kills_everything(start):
    one = start()
    one.assign("python", "print('begun', flush=True)\nwhile True: pass")
    one.step()
    spawner = one.spawner_pid()
    one.connection.close()
    assert one.process.wait(10) == 0
    assert not os.path.exists(f"/proc/{spawner}/exe") or \
        os.readlink(f"/proc/{spawner}/exe") != r.program("kiln-sandbox")


def test_death_of_the_spawner_is_told_and_ends_the_runner(start):
    one = start()
    tasks = [one.assign("python", "print(1, flush=True)\nwhile True: pass") for _ in range(2)]
    while any(not one.tasks[t].stdout for t in tasks):
        one.step()
    os.kill(one.spawner_pid(), signal.SIGKILL)
    for t in tasks:
        assert one.wait(t).done["error_code"] == "sandbox_lost"
    assert one.wait_end() == 3


# ---- what the protocol forbids ----


def frame_bytes(kind, **fields):
    data = wire.pack("Frame", {kind: fields})
    return struct.pack(">I", len(data)) + data


def assign_fields(**more):
    fields = {"task": uuid.uuid4().bytes, "attempt": 1, "lease_ms": 5000, "tenant": "t",
              "program": {"language": "bash", "entry": "main.sh",
                          "files": [{"name": "main.sh", "content": b"echo hi", "size": 7}],
                          "compile_limits": r.complete(None)},
              "runs": [{"limits": r.complete({})}]}
    fields.update(more)
    return fields


FORBIDDEN = {
    "second hello": lambda: frame_bytes("hello", protocol=1),
    "runner's frame": lambda: frame_bytes("accepted", task=b"x" * 16),
    "heartbeat": lambda: frame_bytes("heartbeat", slots=1),
    "no kind": lambda: struct.pack(">I", 0),
    "garbage": lambda: struct.pack(">I", 9) + b"\xff" * 9,
    "too long": lambda: struct.pack(">I", MIB + 1),
    "far too long": lambda: struct.pack(">I", 0xffffffff),
    "short id": lambda: frame_bytes("assign", **assign_fields(task=b"short")),
    "no runs": lambda: frame_bytes("assign", **assign_fields(runs=[])),
    "no program": lambda: frame_bytes("assign", **{k: v for k, v in assign_fields().items()
                                                   if k != "program"}),
    "too many bytes": lambda: frame_bytes("assign", **assign_fields(
        runs=[{"stdin_size": 1 << 40, "limits": r.complete({})}])),
    "long tenant": lambda: frame_bytes("assign", **assign_fields(tenant="t" * 100)),
}


@pytest.mark.parametrize("data", list(FORBIDDEN.values()), ids=list(FORBIDDEN))
def test_forbidden_frame_ends_the_connection(start, data):
    one = start(languages=None)
    one.connection.send_bytes(data())
    assert one.wait_end() == 0


def test_frame_before_hello_ends_the_connection(start):
    one = start(hello=False)
    one.connection.send("assign", **assign_fields())
    assert one.connection.receive(30)[0] == "hello"
    assert one.connection.receive(30) is None


def test_other_protocol_version_ends_the_connection(start):
    one = start(hello=False)
    one.connection.send("hello", protocol=99)
    frame = one.connection.receive(30)
    assert frame[0] == "hello" and frame[1]["protocol"] == 1
    assert one.connection.receive(30) is None
    assert one.process.wait(20) == 0
    assert "protocol 99" in one.log_text()


def test_same_task_twice_ends_the_connection(start):
    one = start()
    task = one.assign("bash", "sleep 5")
    one.tasks[task].accepted = False
    one.connection.send("assign", **assign_fields(task=task))
    assert one.wait_end() == 0


def test_more_content_than_announced_ends_the_connection(start):
    one = start()
    fields = assign_fields(runs=[{"stdin_size": 10, "limits": r.complete({})}])
    one.tasks[fields["task"]] = r.Result()
    one.connection.send("assign", **fields)
    one.connection.send("content", task=fields["task"], is_stdin=True, index=0, bytes=b"x" * 11)
    assert one.wait_end() == 0
    assert "more content" in one.log_text()


def test_stdin_for_a_complete_run_ends_the_connection(start):
    one = start()
    task = one.assign("bash", "sleep 5")
    one.connection.send("stdin", task=task, run=0, bytes=b"x")
    assert one.wait_end() == 0


BAD_TASKS = {
    "unknown language": ({"program": {"language": "cobol-99"}}, "language_not_installed"),
    "entry missing": ({"program": {"language": "bash", "entry": "nope.sh"}}, "bad_task"),
    "path upwards": ({"program": {"language": "bash", "entry": "../x",
                                  "files": [{"name": "../x", "content": b"", "size": 0}]}},
                     "bad_task"),
    "absolute path": ({"program": {"language": "bash", "entry": "/x",
                                   "files": [{"name": "/x", "content": b"", "size": 0}]}},
                      "bad_task"),
}


@pytest.mark.parametrize("change,code", list(BAD_TASKS.values()), ids=list(BAD_TASKS))
def test_bad_task_is_told(shared, change, code):
    fields = assign_fields(**change)
    shared.tasks[fields["task"]] = r.Result()
    shared.connection.send("assign", **fields)
    assert shared.wait(fields["task"]).done["error_code"] == code


# ---- a broken language ----


def with_language(text):
    path = r.copy_languages("bash")
    with open(os.path.join(path, "odd.yaml"), "w", encoding="utf-8") as f:
        f.write(text)
    return path


def test_compiler_that_makes_nothing_is_a_compile_error(start):
    path = with_language("name: odd\ntitle: Odd\nextensions: [.odd]\nsource: main.odd\n"
                         "version: {argv: [/bin/true]}\ninstall: {debian: coreutils}\n"
                         "compile: {argv: [/bin/true], produces: [main]}\nrun: {argv: [./main]}\n"
                         "check: {hello: {code: x, stdout: x}}\n")
    one = start(languages=path)
    result = one.run("odd", "x", entry="main.odd")
    assert result.compiled["exit_code"] == -1 and b'made no "main"' in result.compiled["output"]
    shutil.rmtree(path)


def test_product_that_cannot_be_executed_is_a_runtime_error(start):
    path = with_language("name: odd\ntitle: Odd\nextensions: [.odd]\nsource: main.odd\n"
                         "version: {argv: [/bin/true]}\ninstall: {debian: coreutils}\n"
                         "compile: {argv: [/bin/cp, main.odd, main], produces: [main]}\n"
                         "run: {argv: [./main]}\ncheck: {hello: {code: x, stdout: x}}\n")
    one = start(languages=path)
    result = one.run("odd", "\x7fELF broken", entry="main.odd")
    assert result.outcome == "runtime_error" and result.run["exit_code"] == 126
    shutil.rmtree(path)


def test_language_that_is_not_installed_is_said(start):
    path = with_language("name: odd\ntitle: Odd\nextensions: [.odd]\nsource: main.odd\n"
                         "version: {argv: [/nonexistent/odd]}\ninstall: {debian: coreutils}\n"
                         "run: {argv: [/nonexistent/odd]}\ncheck: {hello: {code: x, stdout: x}}\n")
    one = start(languages=path)
    assert {l["name"]: bool(l["installed"]) for l in one.hello["languages"]} == \
        {"bash": True, "odd": False}
    assert one.run("odd", "x", entry="main.odd").done["error_code"] == "language_not_installed"
    shutil.rmtree(path)


# ---- start-up ----


@pytest.mark.parametrize("argv,message,code", [
    ([], "--connection-fd is required", 2),
    (["--nonsense"], 'unknown option "--nonsense"', 2),
    (["--slots", "9"], '"9" is not a number from 1 to 8', 2),
    (["--slots"], 'option "--slots" needs a value', 2),
    (["--limits", "none"], '"none" is not auto, cgroup2, cgroup1 or rlimit', 2),
    (["--min-isolation", "moat"], '"moat" is no kind of isolation', 2),
    (["--user", "0:0"], '"0" is not a number', 2),
    (["--connection-fd", "77"], "descriptor 77 cannot be the connection", 2),
    (["--connection-fd", "0"], "descriptor 0 cannot be the connection", 2),
])
def test_wrong_options_are_one_clear_line(argv, message, code):
    done = subprocess.run([r.program("kiln-runner"), *argv], capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, timeout=20, check=False)
    assert done.returncode == code
    assert message in done.stderr and done.stderr.count("\n") == 1


def refused(*args):
    one = r.Runner(*args, hello=False)
    code = one.process.wait(20)
    text = one.log_text()
    one.connection.close()
    assert text.count("\n") == 1, text
    return code, text


def test_missing_sandbox_program_is_one_clear_line():
    code, text = refused("--sandbox", "/nonexistent/kiln-sandbox")
    assert code == 1 and "/nonexistent/kiln-sandbox" in text


def test_missing_languages_are_one_clear_line():
    code, text = refused("--languages", "/nonexistent")
    assert code == 1 and "/nonexistent" in text


def test_isolation_below_the_demanded_is_refused():
    code, text = refused("--limits", "rlimit", "--min-isolation", "cgroup")
    assert code == 1 and "refusing to run" in text and "without cgroup" in text


def test_version_and_help():
    for option, text in (("--version", "kiln-runner "), ("--help", "usage: kiln-runner")):
        done = subprocess.run([r.program("kiln-runner"), option], capture_output=True, text=True,
                              timeout=20, check=False)
        assert done.returncode == 0 and done.stdout.startswith(text)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to see that it is given up")
def test_root_is_given_up(start):
    one = start("--user", "64777:64778")
    with open(f"/proc/{one.process.pid}/status", encoding="ascii") as f:
        status = f.read()
    assert re.search(r"Uid:\s+64777\s+64777\s+64777", status)
    assert re.search(r"Gid:\s+64778\s+64778\s+64778", status)
    assert re.search(r"Groups:\s*\n", status)
    assert re.search(r"CapEff:\s+0+\n", status) and re.search(r"NoNewPrivs:\s+1", status)
    assert one.run("bash", "echo hi").stdout == b"hi\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")
def test_ordinary_user_can_run_programs(start):
    become = ["setpriv", "--reuid", "64779", "--regid", "64779", "--clear-groups"]
    for name in ("kiln-runner", "kiln-sandbox"):
        if subprocess.run([*become, "test", "-x", r.program(name)], check=False).returncode:
            pytest.skip(f"{r.program(name)} cannot be reached by other users")
    one = start(prefix=become)
    assert one.hello["isolation"]["seccomp"] and one.hello["isolation"]["namespaces"]
    assert one.run("c", C_HELLO).stdout == b"hello\n"
    assert one.run("python", "while True: pass", limits={"cpu_ms": 300}).outcome == "time_limit"


# ---- long running ----


def test_a_thousand_tasks_leave_nothing_behind(start):
    one = start(slots=2)
    for _ in range(40):
        one.run("bash", "echo warm")
    one.run("c", C_HELLO)
    time.sleep(1)
    fds, rss = one.open_fds(), one.rss_bytes()
    count = 250 if SANITIZED else 1000
    waiting = []
    for i in range(count):
        waiting.append(one.assign("c", C_HELLO) if i % 2 else
                       one.assign("bash", "read x; echo $x; exit 1", stdin=b"line\n"))
        if len(waiting) == 2:
            for task in waiting:
                result = one.wait(task)
                assert result.stdout in (b"hello\n", b"line\n") and not result.done["error_code"]
                del one.tasks[task]
            waiting = []
    time.sleep(1)
    assert one.open_fds() <= fds + 2
    if not SANITIZED:
        assert one.rss_bytes() - rss < 2 * MIB


def test_heartbeats_while_something_changes_and_when_idle(start):
    one = start()
    one.run("bash", "echo hi")
    end = time.monotonic() + 8
    while time.monotonic() < end:
        try:
            one.step(0.5)
        except TimeoutError:
            pass
    assert 2 <= len(one.heartbeats) <= 5
    last = one.heartbeats[-1]
    assert last["tasks"] == 1 and last["busy"] == 0 and last["slots"] == 2
    assert last["standbys"] == 3
