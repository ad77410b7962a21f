# SPDX-License-Identifier: Apache-2.0
"""What languages make beforehand: made once, kept, shown to boxes, and never told from its absence
but by the time that it saves."""

import os
import re
import shutil
import signal
import stat
import subprocess
import tempfile
import time
import uuid

import pytest

import runner as r

MADE = "the setup of a language is made"
FAILED = "the setup of a language failed"
ROOT = os.geteuid() == 0
RUNNER_ID = 64777


@pytest.fixture
def folder():
    """A place for a setup folder, where the user that a runner becomes can reach it."""
    path = tempfile.mkdtemp(prefix="kiln-setup-")
    os.chmod(path, 0o755)
    yield os.path.join(path, "setup")
    shutil.rmtree(path)


@pytest.fixture
def start(folder):
    started = []

    def make(languages, **more):
        user = ("--user", f"{RUNNER_ID}:{RUNNER_ID}") if ROOT else ()
        one = r.Runner("--setup-dir", folder, *user, languages=languages, **more)
        started.append(one)
        return one

    yield make
    for one in started:
        log = one.log_text()
        assert one.close() == 0, log
        assert "ERROR: " not in log and "runtime error" not in log, log


@pytest.fixture
def odd():
    """A language that prints its program, and what it made beforehand where it is there."""
    path = tempfile.mkdtemp(prefix="kiln-languages-")
    os.chmod(path, 0o755)

    def write(commands="[[/bin/cp, given, made]]", produces="[made]", text="made of this"):
        with open(os.path.join(path, "odd.yaml"), "w", encoding="utf-8") as f:
            f.write("name: odd\nsource: main.odd\nversion: {argv: [/bin/true]}\n"
                    f"setup:\n  files: {{given: {text}}}\n  commands: {commands}\n"
                    f"  produces: {produces}\n"
                    "run: {argv: [/bin/cat, \"{entry}\", \"{setup}/made\"]}\n")
        return path

    yield write
    shutil.rmtree(path)


def until(one, text, seconds=60):
    end = time.monotonic() + seconds
    while text not in one.log_text():
        assert time.monotonic() < end, one.log_text()
        time.sleep(0.02)


def said(one):
    return one.run("odd", "program ", entry="main.odd").stdout


def kept(folder):
    return sorted(os.listdir(folder))


def test_setup_is_made_once_and_kept(start, folder, odd):
    one = start(odd())
    until(one, MADE)
    assert said(one) == b"program made of this"
    names = kept(folder)
    assert len(names) == 1 and re.fullmatch(r"odd-[0-9a-f]{16}", names[0]), names
    made = os.stat(os.path.join(folder, names[0], "made"))
    assert stat.S_IMODE(made.st_mode) == 0o644 and made.st_uid == (RUNNER_ID if ROOT else os.geteuid())
    other = start(odd())
    assert said(other) == b"program made of this"
    assert MADE not in other.log_text() and kept(folder) == names
    assert os.stat(os.path.join(folder, names[0], "made")).st_ino == made.st_ino


def test_setup_that_takes_its_time_keeps_nobody_waiting(start, folder, odd):
    one = start(odd("[[/bin/sleep, '600']]"))
    assert said(one) == b"program "
    assert kept(folder)[0].startswith(".odd-")


def test_setup_that_a_task_could_use_comes_first(start, folder, odd):
    path = odd("[[/bin/sleep, '1'], [/bin/cp, given, made]]")
    for name in ("a", "b", "z"):
        with open(os.path.join(path, "odd.yaml"), encoding="utf-8") as f:
            text = f.read().replace("name: odd", f"name: {name}")
        with open(os.path.join(path, f"{name}.yaml"), "w", encoding="utf-8") as f:
            f.write(text)
    one = start(path)
    assert one.run("z", "program ", entry="main.odd").stdout == b"program "
    until(one, f'{MADE}","language":"z"')
    assert '"language":"odd"' not in one.log_text()


def test_setup_that_fails_is_told_and_done_without(start, folder, odd):
    for commands, produces in (("[[/bin/false]]", "[made]"), ("[[/bin/true]]", "[made]"),
                               ("[[/bin/ln, -s, /etc/passwd, made]]", "[made]"),
                               ("[[/bin/nonexistent]]", "[made]")):
        one = start(odd(commands, produces))
        until(one, FAILED)
        assert said(one) == b"program "
        assert kept(folder) == [], commands
        assert one.log_text().count(FAILED) == 1


def test_setup_of_another_language_file_is_another(start, folder, odd):
    one = start(odd())
    until(one, MADE)
    before = kept(folder)[0]
    # Left by a runner that died, long ago and just now.
    for name in (".odd-0123456789abcdef.1.work", ".odd-0123456789abcdef.2.work"):
        os.mkdir(os.path.join(folder, name))
    os.utime(os.path.join(folder, ".odd-0123456789abcdef.1.work"), (1, 1))
    os.utime(os.path.join(folder, before), (1, 1))
    other = start(odd(text="made of that"))
    until(other, MADE)
    assert said(other) == b"program made of that"
    names = kept(folder)
    assert before not in names and len(names) == 2
    assert names[0] == ".odd-0123456789abcdef.2.work"
    # Its files are gone under it: it goes on without.
    assert said(one).startswith(b"program ")


def test_setup_cannot_be_changed_by_a_task(start, folder, odd):
    path = odd()
    shutil.copy(os.path.join(r.ROOT, "languages", "bash.yaml"), path)
    one = start(path)
    until(one, MADE)
    code = "cd /setup/odd-* && cat made && (echo x > made; echo x > other; rm made; " \
           "mv made gone; chmod 777 made; touch made; echo x >> /setup/x) 2>&1 | " \
           "grep -vcE 'Read-only file system|Operation not permitted|Permission denied'"
    assert one.run("bash", code).stdout == b"made of this0\n"
    assert said(one) == b"program made of this"


@pytest.mark.parametrize("mode,owner", [(0o777, None), (0o755, 64001)])
def test_setup_folder_that_others_may_write_is_refused(folder, odd, mode, owner):
    if owner and not ROOT:
        pytest.skip("needs root, to give a folder away")
    os.mkdir(folder)
    if ROOT:
        os.chown(folder, owner or RUNNER_ID, owner or RUNNER_ID)
    os.chmod(folder, mode)
    one = r.Runner("--setup-dir", folder, "--user", f"{RUNNER_ID}:{RUNNER_ID}", hello=False,
                   languages=odd())
    assert one.process.wait(20) == 1
    assert "must belong to user" in one.log_text() and one.log_text().count("\n") == 1
    one.connection.close()


def test_setup_folder_that_is_a_link_is_refused(folder, odd):
    os.symlink("/etc", folder)
    one = r.Runner("--setup-dir", folder, hello=False, languages=odd())
    assert one.process.wait(20) == 1
    assert "could not open the setup folder" in one.log_text()
    one.connection.close()


def test_setup_ends_with_its_runner(start, folder, odd):
    one = start(odd("[[/bin/sleep, '612']]"))
    assert said(one) == b"program "
    assert subprocess.run(["pgrep", "-f", "^/bin/sleep 612$"], check=False).returncode == 0
    one.process.send_signal(signal.SIGTERM)
    assert one.process.wait(20) == 0
    assert subprocess.run(["pgrep", "-f", "^/bin/sleep 612$"], check=False).returncode == 1
    assert kept(folder) == []


# ---- the languages that have one ----

CPP = {
    "hello": '#include <bits/stdc++.h>\nint main() { std::cout << "hello\\n"; }',
    "second": '// first\n\n#include <bits/stdc++.h>\n#include <bits/stdc++.h>\n'
              'int main() { std::map<int, std::string> m{{1, "a"}}; std::cout << m[1] << __LINE__ << '
              '__FILE__ << "\\n"; }',
    "in quotes": '#include "bits/stdc++.h"\nint main() { std::puts("quoted"); }',
    "own file": '#include "own.h"\n#include <bits/stdc++.h>\nint main() { std::cout << OWN; }',
    "other headers first": '#include <cassert>\n#include <bits/stdc++.h>\n'
                           'int main() { assert(1); std::cout << std::vector<int>(3).size(); }',
    "macro that the headers know": '#define _GLIBCXX_DEBUG\n#include <bits/stdc++.h>\n'
                                   'int main() { std::vector<int> v; std::cout << v[1]; }',
    "macro that the headers use as a name": '#define N 3\n#define size_of_it 4\n'
        '#include <bits/stdc++.h>\nint main() { std::cout << N + size_of_it; }',
    "NDEBUG": '#define NDEBUG\n#include <bits/stdc++.h>\nint main() { assert(false); std::cout << 1; }',
    "pragma optimize": '#pragma GCC optimize("Ofast")\n#include <bits/stdc++.h>\n'
                       'int main() { volatile double z = 0; std::cout << __FAST_MATH__ << z; }',
    "pragma target": '#pragma GCC target("avx2")\n#include <bits/stdc++.h>\n#include <immintrin.h>\n'
                     'int main() { __m256i x = _mm256_setzero_si256(); '
                     'std::cout << _mm256_extract_epi32(x, 3); }',
    "code before": 'int before() { return 1; }\n#include <bits/stdc++.h>\n'
                   'int main() { std::cout << before(); }',
    "exceptions, threads": '#include <bits/stdc++.h>\nint main() { std::thread t([] { try { throw 1; } '
                           'catch (int i) { std::cout << i; } }); t.join(); '
                           'std::ostringstream o; o << std::regex_replace("abc", std::regex("b"), "x"); '
                           'std::cout << o.str() << std::filesystem::path("a/b").filename(); }',
    "warning": '#include <bits/stdc++.h>\nint main() { char b[2]; std::strcpy(b, "far too long"); '
               'std::puts(b); return 0; }',
    "missing": '#include <bits/stdc++.h>\nint main() { return missing; }',
    "template error": '#include <bits/stdc++.h>\nstruct X {};\n'
                      'int main() { std::vector<X> v(3); std::sort(v.begin(), v.end()); }',
}
JAVA = {
    "hello": 'public class Main { public static void main(String[] a) { System.out.println("hello"); } }',
    "lambda": 'import java.util.stream.*;\npublic class Main { record P(int n) {}\n'
              'public static void main(String[] a) { System.out.println(IntStream.range(0, 4)'
              '.mapToObj(P::new).map(p -> "" + p).collect(Collectors.joining(";"))); } }',
    "warning": 'import java.util.*;\npublic class Main { public static void main(String[] a) '
               '{ List l = new ArrayList(); l.add(1); System.out.println(l); } }',
    "missing": 'public class Main { public static void main(String[] a) { missing(); } }',
    "syntax": 'public class Main { public static void main(String[] a) { int x = ; } ',
    "exception": 'public class Main { public static void main(String[] a) '
                 '{ throw new IllegalStateException("no"); } }',
}


def outcome(result):
    """All that a user sees of it, but for times, addresses, and where a note says that a file is
    included."""
    text = re.sub(rb"(In file included from|                 from) [^\n]*\n", b"", result.compiled["output"])
    run = result.runs.get(0)
    return (result.compiled["exit_code"], text,
            run and (run["outcome"], run["exit_code"], run["signal"]), result.stdout,
            re.sub(rb"0x[0-9a-f]+", b"0x", result.stderr))


@pytest.mark.parametrize("language,programs,most", [("cpp", CPP, 0.6), ("java", JAVA, 0.85)])
def test_setup_changes_nothing_but_the_time(start, language, programs, most):
    """Every program with and without; and that it saves what it is there for."""
    languages = r.copy_languages(language)
    plain = r.Runner(languages=languages, slots=1)
    with_setup = start(languages, slots=1)
    until(with_setup, MADE, 240)
    limits = {"limits": {"memory_bytes": 512 << 20, "processes": 128},
              "compile_limits": {"memory_bytes": 1 << 30, "processes": 128, "cpu_ms": 60000,
                                 "wall_ms": 120000},
              "files": {"own.h": b"#define OWN 5\n"}}
    used = []
    for name, code in programs.items():
        both = [(one, one.assign(language, code, **limits)) for one in (plain, with_setup)]
        results = [one.wait(task) for one, task in both]
        assert outcome(results[0]) == outcome(results[1]), name
        used.append([x.compiled["usage"]["cpu_us"] for x in results])
    hello = [[one.run(language, f"/* {uuid.uuid4()} */" + programs["hello"], **limits)
              .compiled["usage"]["cpu_us"] for _ in range(3)] for one in (plain, with_setup)]
    assert min(hello[1]) < most * min(hello[0]), (hello, used)
    assert plain.close() == 0
    shutil.rmtree(languages)
