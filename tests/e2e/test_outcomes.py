# SPDX-License-Identifier: Apache-2.0
"""What a program did is told exactly: each outcome with the fields that hold for it (the table is
checked by harness.check_shape for every result that any test reads)."""

import base64
import time

import pytest

from harness import SANITIZED
from programs import COMPILE_ERROR

MIB = 1 << 20


def c(body, head=""):
    return f"#include <stdio.h>\n#include <stdlib.h>\n#include <signal.h>\n#include <unistd.h>\n{head}\n" \
           f"int main(void) {{ {body} }}"


@pytest.mark.parametrize("language, code", [
    ("python", "raise SystemExit(3)"), ("c", c("return 3;")), ("bash", "exit 3"),
    ("javascript", "process.exit(3)"), ("ruby", "exit 3"), ("bash", "exit 255"),
])
def test_exit_code(server, language, code):
    task = server.run(language, code)
    assert task["outcome"] == "runtime_error"
    assert task["exit_code"] == (255 if "255" in code else 3)


@pytest.mark.parametrize("language, code, word", [
    ("python", "raise ValueError('oh')", "ValueError: oh"),
    ("python", "print(", "SyntaxError"),
    ("javascript", "throw new Error('oh')", "Error: oh"),
    ("java", "public class Main { public static void main(String[] a) { throw new RuntimeException(\"oh\"); } }",
     "RuntimeException: oh"),
    ("ruby", "raise 'oh'", "oh (RuntimeError)"),
    ("go", "package main\nfunc main() { panic(\"oh\") }", "panic: oh"),
])
def test_uncaught_error_is_a_runtime_error_with_its_text(server, language, code, word):
    task = server.run(language, code)
    assert task["outcome"] == "runtime_error", task
    assert task["exit_code"] in (1, 2)
    assert word in task["stderr"]


@pytest.mark.parametrize("code, name", [
    (c("volatile int *p = 0; *p = 1;"), "SIGSEGV"), (c("abort();"), "SIGABRT"),
    (c("raise(SIGFPE);"), "SIGFPE"), (c("kill(getpid(), SIGKILL); pause();"), "SIGKILL"),
    (c("raise(SIGTERM);"), "SIGTERM"), (c("__builtin_trap();"), "SIGILL"),
    (c("raise(SIGPIPE);"), "SIGPIPE"), (c("raise(SIGUSR1);"), "SIGUSR1"),
])
def test_signal(server, code, name):
    task = server.run("c", code)
    assert (task["outcome"], task["signal"]) == ("signalled", name), task


def test_output_before_a_crash_is_kept(server):
    task = server.run("c", c('printf("before\\n"); fflush(stdout); abort();'))
    assert (task["outcome"], task["stdout"]) == ("signalled", "before\n")


@pytest.mark.parametrize("language", COMPILE_ERROR)
def test_compile_error_carries_the_compilers_output(server, language):
    task = server.run(language, COMPILE_ERROR[language])
    assert task["outcome"] == "compile_error"
    assert task["compile"]["exit_code"] not in (0, None)
    assert "missing" in task["compile"]["output"], task["compile"]
    assert task["compile"]["cached"] is False


def test_compile_errors_are_not_cached(server):
    for _ in range(2):
        assert server.run("c", COMPILE_ERROR["c"])["compile"]["cached"] is False


def test_compiler_that_runs_into_its_limits(server):
    task = server.run("c", '#include "/dev/zero"\nint main(void) { return 0; }')
    assert task["outcome"] == "compile_error", task
    assert task["limit_hit"] in ("memory_bytes", "cpu_ms", "wall_ms", "output_bytes") or \
        task["compile"]["exit_code"] not in (0, None), task


def test_compiler_that_says_a_great_deal(server):
    """More than one frame between runner and scheduler could carry."""
    task = server.run("c", f"#warning {'x' * 1000}\n" * 3000 + "int main(void) { return 0; }")
    assert (task["outcome"], task["limit_hit"], task["attempt"]) == ("compile_error", "output_bytes", 1)
    assert task["compile"]["output_truncated"]
    assert len(task["compile"]["output"]) > MIB // 4


def test_compiler_cannot_read_the_host(server):
    task = server.run("c", '#include "/etc/shadow"\nint main(void) { return 0; }')
    assert task["outcome"] == "compile_error"
    assert "No such file" in task["compile"]["output"] or "denied" in task["compile"]["output"]


def test_cpu_time_limit(server):
    task = server.run("c", "int main(void) { for (;;) ; }", limits={"cpu_ms": 300, "wall_ms": 10000})
    assert (task["outcome"], task["limit_hit"]) == ("time_limit", "cpu_ms"), task
    assert 290 <= task["usage"]["cpu_ms"] <= 600, task["usage"]


def test_cpu_time_of_all_processes_counts(server):
    code = "import os\nfor _ in range(3): os.fork()\nwhile True: pass"
    task = server.run("python", code, limits={"cpu_ms": 600, "wall_ms": 10000})
    assert (task["outcome"], task["limit_hit"]) == ("time_limit", "cpu_ms"), task
    assert task["usage"]["cpu_ms"] <= 1200, task["usage"]


@pytest.mark.parametrize("language, code", [
    ("python", "import time\nprint('first', flush=True)\ntime.sleep(30)"),
    ("bash", "echo first; sleep 30"),
    ("c", c('puts("first"); fflush(stdout); raise(SIGSTOP);')),
])
def test_wall_time_limit(server, language, code):
    start = time.monotonic()
    task = server.run(language, code, limits={"wall_ms": 700})
    assert (task["outcome"], task["limit_hit"]) == ("time_limit", "wall_ms"), task
    assert task["stdout"] == "first\n"
    assert 690 <= task["usage"]["wall_ms"] <= 1100, task["usage"]
    assert task["usage"]["cpu_ms"] < 500
    assert time.monotonic() - start < (20 if SANITIZED else 5)


def test_daemon_that_leaves_its_parent_is_ended_with_the_task(server):
    code = '''
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(60)
    os._exit(0)
print("parent ends", flush=True)
'''
    start = time.monotonic()
    task = server.run("python", code)
    assert (task["outcome"], task["stdout"]) == ("ok", "parent ends\n"), task
    assert time.monotonic() - start < 10


def test_memory_limit(server):
    code = "import time\nx = bytearray(400 << 20)\nprint(len(x))\ntime.sleep(1)"
    task = server.run("python", code, limits={"memory_bytes": 100 * MIB})
    assert (task["outcome"], task["limit_hit"]) == ("memory_limit", "memory_bytes"), task
    if task["usage"]["memory_bytes"] is not None:
        assert task["usage"]["memory_bytes"] <= 110 * MIB


def test_memory_of_all_processes_counts(server):
    code = '''
import os, time
for _ in range(3):
    if os.fork() == 0:
        break
x = bytearray(60 << 20)
time.sleep(2)
'''
    task = server.run("python", code, limits={"memory_bytes": 128 * MIB})
    assert (task["outcome"], task["limit_hit"]) == ("memory_limit", "memory_bytes"), task


def test_files_count_as_memory_or_are_bounded(server):
    code = '''
try:
    with open("big", "wb") as f:
        for _ in range(1000):
            f.write(bytes(1 << 20))
            f.flush()
    print("wrote it all")
except OSError as e:
    print("refused", e.errno)
'''
    task = server.run("python", code)
    assert "wrote it all" not in task["stdout"], task
    assert task["outcome"] in ("ok", "memory_limit", "signalled"), task


def test_deep_recursion_is_the_programs_own_crash(server):
    task = server.run("c", "int f(int n) { volatile char b[4096]; b[0] = 1; return f(n + 1) + b[0]; }\n"
                           "int main(void) { return f(0); }")
    assert task["outcome"] in ("signalled", "memory_limit", "time_limit"), task


@pytest.mark.parametrize("language, code", [
    ("python", "import sys\nwhile True: sys.stdout.write('x' * 4096)"),
    ("bash", "yes"),
    ("c", c('for (;;) fputs("yyyyyyyyyyyyyyyyyyyyyyyyyyy\\n", stderr);')),
])
def test_output_limit(server, language, code):
    start = time.monotonic()
    task = server.run(language, code, limits={"output_bytes": 20000, "wall_ms": 10000})
    assert (task["outcome"], task["limit_hit"]) == ("output_limit", "output_bytes"), task
    which = "stderr" if language == "c" else "stdout"
    assert len(task[which]) == 20000
    assert task[f"{which}_truncated"] is True
    assert time.monotonic() - start < 15


def test_output_of_exactly_the_limit_is_no_flood(server):
    task = server.run("python", "print('x' * 999)", limits={"output_bytes": 1000})
    assert (task["outcome"], len(task["stdout"]), task["stdout_truncated"]) == ("ok", 1000, False)


def test_cut_inside_a_character_is_not_replaced(server):
    task = server.run("python", "import sys\nwhile True: sys.stdout.write('\u00e9' * 1000)",
                      limits={"output_bytes": 1001})
    assert task["outcome"] == "output_limit"
    raw = task["stdout"].encode() if task["stdout_encoding"] == "utf8" else base64.b64decode(task["stdout"])
    assert raw == ("\u00e9" * 501).encode()[:len(raw)]
    assert len(raw) in (1000, 1001)


def test_one_mebibyte_of_output_comes_whole(server):
    task = server.run("python", "import sys\nsys.stdout.write('0123456789abcde\\n' * 65536)")
    assert task["outcome"] == "ok"
    assert task["stdout"] == "0123456789abcde\n" * 65536


def test_process_limit(server):
    code = '''
import os, time
n = 0
try:
    for _ in range(200):
        if os.fork() == 0:
            time.sleep(20)
            os._exit(0)
        n += 1
except OSError as e:
    print("refused", e.errno)
print(n)
'''
    task = server.run("python", code, limits={"processes": 16})
    assert task["outcome"] == "ok", task
    assert "refused 11" in task["stdout"]
    assert int(task["stdout"].split()[-1]) <= 16


def test_fork_bomb(server):
    task = server.run("bash", ":(){ :|:& };:; sleep 5", limits={"processes": 32, "wall_ms": 2000})
    assert task["status"] == "done", task
    assert server.run("bash", "echo alive")["stdout"] == "alive\n"


def test_both_streams_stay_apart(server):
    code = "import sys\nfor i in range(1000):\n    print(i)\n    print(-i, file=sys.stderr)"
    task = server.run("python", code)
    assert task["stdout"] == "".join(f"{i}\n" for i in range(1000))
    assert task["stderr"] == "".join(f"{-i}\n" for i in range(1000))


def test_program_that_closes_its_streams(server):
    task = server.run("python", "import os, time\nos.close(1)\nos.close(2)\nos.close(0)\ntime.sleep(0.3)")
    assert (task["outcome"], task["stdout"]) == ("ok", "")


def test_wall_time_of_sleep_is_measured(server):
    task = server.run("python", "import time\ntime.sleep(0.5)")
    assert 500 <= task["usage"]["wall_ms"] < 1500, task["usage"]
    assert task["usage"]["cpu_ms"] < 400


def test_product_goes_before_a_file_of_the_same_name(server):
    task = server.run("c", "int main(void) { return 3; }",
                      files=[{"name": "main", "content": "not a program"}])
    assert (task["outcome"], task["exit_code"]) == ("runtime_error", 3), task
