#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Runs the test suites and adds them up.

    tools/test.py all        everything, as CI does; the last line is "N passed, N failed, N skipped"
    tools/test.py quick      unit, sandbox and integration tests on the sanitized build
    tools/test.py stack      tests that need PostgreSQL, RabbitMQ and Redis, which it starts
    tools/test.py chaos      a load while parts are killed, stopped and cut off, and its checker
    tools/test.py cluster    a Kubernetes of one node, Kiln on it, and faults of both; --short: some of it
    tools/test.py hostile    programs that attack, bomb and flood, beside ordinary ones, and a census after
    tools/test.py check      formatting, banned functions, header boundaries, scripts, clang-tidy
    tools/test.py fuzz       every fuzz target for --seconds
    tools/test.py reports    gcc -fanalyzer, clang's analyzer and cppcheck; never fails

With CI=true a skipped test is a failed run: CI must not lose a test without anybody noticing.
"""

import argparse
import concurrent.futures
import contextlib
import glob
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import threading
import time
import xml.etree.ElementTree as ET

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
RELEASE, ASAN, FUZZ = "build", "build-asan", "build-fuzz"
JOBS = str(os.cpu_count() or 2)
PYTHON = "/usr/bin/python3"

# What a sanitizer finds ends the program with this number, so that no test takes it for its own.
SANITIZER_ENV = {
    "ASAN_OPTIONS": "exitcode=99:detect_leaks=1:abort_on_error=0:allocator_may_return_null=1",
    "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1:exitcode=99",
}


class Lane(threading.local):
    """What suites have that run beside others: variables of their environment, and a file for what
    they print, which is shown whole when a suite ends. A run that has no lanes shows all at once."""
    env = {}
    file = None

    def say(self, text):
        print(text, file=self.file, flush=True)

    def show(self):
        if self.file:
            self.file.seek(0)
            with showing:
                print(self.file.read(), end="", flush=True)
            self.file.truncate(0)


lane = Lane()
showing = threading.Lock()


def beside(*lanes):
    """Runs functions at the same time, each in a lane: most tests wait for most of their time."""
    def one(function):
        with tempfile.TemporaryFile("a+", encoding="utf-8", errors="replace") as lane.file:
            lane.env = {}
            try:
                function()
            finally:
                lane.show()
    with concurrent.futures.ThreadPoolExecutor(len(lanes)) as pool:
        for done in [pool.submit(one, function) for function in lanes]:
            done.result()


class Tally:
    def __init__(self):
        self.suites = []  # (name, passed, failures, skips, seconds)

    def add(self, name, passed, failures, skips, seconds):
        self.suites.append((name, passed, failures, skips, seconds))
        lane.say(f"--- {name}: {passed} passed, {len(failures)} failed, {len(skips)} skipped"
                 f" ({seconds:.0f} s)")
        lane.show()

    def finish(self):
        failed = [(s[0], f) for s in self.suites for f in s[2]]
        skipped = [(s[0], k) for s in self.suites for k in s[3]]
        print("\nSuites:")
        for name, passed, failures, skips, seconds in self.suites:
            print(f"  {name:28} {passed:5} passed {len(failures):3} failed {len(skips):3} skipped"
                  f" {seconds:6.0f} s")
        for suite, (test, why) in skipped:
            print(f"Skipped: {suite}: {test}: {why}")
        for suite, test in failed:
            print(f"Failed: {suite}: {test}")
        total = sum(s[1] for s in self.suites)
        if skipped and os.environ.get("CI") == "true":
            print("CI must not skip anything: every skipped test counts as failed.")
            failed += skipped
            skipped = []
        print(f"{total} passed, {len(failed)} failed" +
              (f", {len(skipped)} skipped" if skipped else ""), flush=True)
        return 1 if failed or total == 0 else 0


def heading(text):
    lane.say(f"\n=== {text}")


def call(argv, env=None, **kw):
    if lane.file:
        kw = {"stdout": lane.file, "stderr": subprocess.STDOUT} | kw
    return subprocess.run(argv, cwd=ROOT, env=os.environ | lane.env | (env or {}), stdin=subprocess.DEVNULL,
                          check=False, **kw)


def read_junit(path):
    """Returns (passed, [failed names], [(skipped name, why)]) of a JUnit file."""
    passed, failed, skipped = 0, [], []
    for case in ET.parse(path).getroot().iter("testcase"):
        name = f"{case.get('classname', '')}.{case.get('name', '')}".strip(".")
        skip = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            failed.append(name)
        elif skip is not None:
            skipped.append((name, skip.get("message") or (skip.text or "").strip() or "no reason"))
        else:
            passed += 1
    return passed, failed, skipped


def with_tests(directory):
    """A build folder that "make run" made where there was no cmocka yet has no test programs."""
    told = call(["meson", "introspect", "--buildoptions", directory], stdout=subprocess.PIPE, text=True)
    options = {one["name"]: one["value"] for one in json.loads(told.stdout or "[]")}
    if options.get("tests") == "auto":
        call(["meson", "configure", directory, "-Dtests=enabled"])


def build(tally, name, directory):
    heading(f"build: {directory}")
    start = time.monotonic()
    if os.path.exists(os.path.join(ROOT, directory, "build.ninja")):
        with_tests(directory)
    ok = call(["make", "--no-print-directory", name]).returncode == 0
    tally.add(f"build {directory}", 1 if ok else 0, [] if ok else [directory], [],
              time.monotonic() - start)
    return ok


@contextlib.contextmanager
def stack(directory, port):
    """Servers of our own while the tests run, beside those of "make stack": tests kill them."""
    env = {"KILN_STACK_DIR": os.path.join(ROOT, directory, "stack"), "KILN_STACK_PORT": str(port)}
    call(["tools/install-deps.sh", "stack"])  # what is missing all the same, the tests say
    up = call(["tools/stack.sh", "up"], env=env, stdout=subprocess.PIPE, text=True)
    before = lane.env
    try:
        if up.returncode != 0:
            raise RuntimeError("the stack did not start")
        lines = (line.removeprefix("export ").partition("=") for line in up.stdout.splitlines())
        lane.env = before | env | {name: value for name, _, value in lines}
        yield
    finally:
        lane.env = before
        call(["tools/stack.sh", "down"], env=env)


def stopped_programs(directory):
    """Of one that had to be stopped, JUnit's file has no line for the test in which it was."""
    with open(os.path.join(ROOT, directory, "meson-logs", "testlog.json"), encoding="utf-8") as f:
        tests = [json.loads(line) for line in f]
    return [one["name"] for one in tests if one["result"] in ("TIMEOUT", "INTERRUPT")]


def meson_tests(tally, directory, suites=(), without=()):
    title = f"meson {directory}" + (f" ({', '.join(suites)})" if suites else "")
    heading(title)
    start = time.monotonic()
    log = os.path.join(ROOT, directory, "meson-logs", "testlog.junit.xml")
    if os.path.exists(log):
        os.unlink(log)
    argv = ["meson", "test", "-C", directory, "--no-rebuild", "--print-errorlogs",
            "--num-processes", JOBS]
    for suite in suites:
        argv += ["--suite", suite]
    for suite in without:
        argv += ["--no-suite", suite]
    code = call(argv, env=SANITIZER_ENV).returncode
    try:
        passed, failed, skipped = read_junit(log)
        failed += stopped_programs(directory)
    except (OSError, ET.ParseError) as e:
        passed, failed, skipped = 0, [f"no results: {e}"], []
    if code != 0 and not failed:
        failed = [f"meson test ended with {code}"]
    tally.add(title, passed, failed, skipped, time.monotonic() - start)


def pytest(tally, directory, tests="tests/e2e", python=PYTHON, without=(), inside=(), more=()):
    title = f"{tests} {directory}"
    heading(title)
    start = time.monotonic()
    log = os.path.join(ROOT, directory, "meson-logs", os.path.basename(tests) + ".junit.xml")
    if os.path.exists(log):
        os.unlink(log)
    env = SANITIZER_ENV | {"KILN_BUILD": os.path.join(ROOT, directory)}
    code = call([*inside, python, "-B", "-m", "pytest", *more, "-q", "--color=no", "-p", "no:cacheprovider",
                 "--durations=5", f"--junit-xml={log}",
                 *(f"--ignore-glob=*/{name}" for name in without), tests], env=env).returncode
    try:
        passed, failed, skipped = read_junit(log)
    except (OSError, ET.ParseError) as e:
        passed, failed, skipped = 0, [f"no results: {e}"], []
    if code != 0 and not failed:
        failed = [f"pytest ended with {code}"]
    tally.add(title, passed, failed, skipped, time.monotonic() - start)


def stack_tests(tally):
    heading("start PostgreSQL, RabbitMQ and Redis")
    try:
        with stack(ASAN, 27150):
            meson_tests(tally, ASAN, ["stack"])
            pytest(tally, ASAN, "tests/stack")
    except RuntimeError as e:
        tally.add("stack", 0, [str(e)], [], 0)


# For the pools that have a load; those of the others are built and tried with all the rest.
IMAGES = ("runner", "gcc", "python", "scripts")
MORE_IMAGES = ("go", "jdk", "node", "php", "ruby")


def cluster_tests(tally, short):
    """On the release build: what is looked for is in the order of things, not in memory."""
    if os.geteuid() != 0:
        tally.add("tests/cluster", 0, [], [("tests/cluster", "only root can start a node")], 0)
        return
    names = IMAGES if short else IMAGES + MORE_IMAGES
    pytest(tally, RELEASE, "tests/cluster", inside=["tests/cluster/run.sh", *names, "--"],
           more=["-m", "not long"] if short else [])
    # With the kubectl that was built for them: Debian has none that knows components.
    pytest(tally, RELEASE, "tests/e2e/test_deploy_kubernetes.py")


def chaos_tests(tally):
    """On the release build: what is looked for is in the order of things, not in memory."""
    heading("faults")
    try:
        with stack(RELEASE, 27160):
            pytest(tally, RELEASE, "tests/chaos")
            meson_tests(tally, RELEASE, ["faults"])
    except RuntimeError as e:
        tally.add("chaos", 0, [str(e)], [], 0)


def same_text(path, text):
    try:
        with open(path, encoding="utf-8") as f:
            return f.read() == text
    except OSError:
        return False


def contract(tally, directory):
    """The contract tests need packages that Debian has not: a virtual environment, kept for the
    next run as long as what it should hold is the same."""
    venv = os.path.join(ROOT, directory, "contract-venv")
    wanted = os.path.join(ROOT, "tests", "contract", "requirements.txt")
    stamp = os.path.join(venv, "requirements.txt")
    with open(wanted, encoding="utf-8") as f:
        text = f.read()
    if not same_text(stamp, text):
        heading("install the tools of tests/contract")
        call([PYTHON, "-m", "venv", "--clear", venv])
        done = call([os.path.join(venv, "bin", "pip"), "install", "-q",
                     "--disable-pip-version-check", "-r", wanted])
        if done.returncode == 0:
            with open(stamp, "w", encoding="utf-8") as f:
                f.write(text)
    pytest(tally, directory, "tests/contract", os.path.join(venv, "bin", "python"))


def fuzz_targets():
    found = glob.glob(os.path.join(ROOT, FUZZ, "tests", "fuzz", "fuzz_*"))
    return sorted(p for p in found if os.path.isfile(p) and os.access(p, os.X_OK))


def fuzz_one(target, seconds):
    name = os.path.basename(target)
    corpus = os.path.join(ROOT, "tests", "fuzz", "corpus", name.removeprefix("fuzz_"))
    work = os.path.join(ROOT, FUZZ, "corpus", name)
    os.makedirs(work, exist_ok=True)
    argv = [target, f"-max_total_time={seconds}", "-timeout=10", "-rss_limit_mb=2048",
            "-print_final_stats=1", f"-artifact_prefix={work}/", work]
    if os.path.isdir(corpus):
        argv.append(corpus)
    done = call(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                errors="replace", env=SANITIZER_ENV)
    return name, done.returncode, done.stdout


def fuzz_figures(output):
    """What libFuzzer tells at its end: how many inputs, how many per second, and what they reached, as
    edges of the control flow ("cov") and as features, which are edges by how often they were taken."""
    def stat(name):
        found = re.findall(rf"^stat::{name}:\s+(\d+)", output, re.M)
        return int(found[-1]) if found else 0
    edges = re.findall(r"cov: (\d+) ft: (\d+) corp: (\d+)", output)
    return (stat("number_of_executed_units"), stat("average_exec_per_sec"),
            *(int(n) for n in (edges[-1] if edges else (0, 0, 0))))


def fuzz(tally, seconds):
    heading(f"fuzz targets, {seconds} s each")
    start = time.monotonic()
    targets = fuzz_targets()
    passed, failed = 0, [] if targets else ["there is no fuzz target"]
    print(f"  {'target':24} {'runs':>12} {'per second':>10} {'edges':>7} {'features':>8} {'corpus':>7}")
    with concurrent.futures.ThreadPoolExecutor(int(JOBS)) as pool:
        for name, code, output in pool.map(lambda t: fuzz_one(t, seconds), targets):
            runs, rate, edges, features, corpus = fuzz_figures(output)
            print(f"  {name:24} {runs:12} {rate:10} {edges:7} {features:8} {corpus:7}"
                  f"{'' if code == 0 else '  FAILED'}", flush=True)
            # A target that did nothing has proved nothing.
            if code == 0 and runs > 0 and edges > 0:
                passed += 1
            else:
                failed.append(name)
                print(output[-6000:])
    tally.add("fuzz", passed, failed, [], time.monotonic() - start)


def tracked(*patterns):
    out = call(["git", "ls-files", "-z", *patterns], stdout=subprocess.PIPE).stdout.decode()
    return [f for f in out.split("\0") if f and os.path.exists(os.path.join(ROOT, f))]


def check_format():
    return call(["clang-format", "--dry-run", "-Werror", *tracked("*.c", "*.h")]).returncode


def check_source():
    return call([PYTHON, "tools/check-source.py"]).returncode


def check_scripts():
    scripts = tracked("*.sh", ".ci/run")
    return call(["shellcheck", *scripts]).returncode if scripts else 0


def tidy(*more):
    # The commands of the clang build, since gcc's have flags that clang does not know. The generated
    # protobuf code is not ours.
    return call(["run-clang-tidy", "-quiet", "-p", FUZZ, "-j", JOBS, *more,
                 r"^(?!.*\.pb-c\.c).*/(src|bench)/.*\.c$"],
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")


def check_tidy():
    done = tidy()
    if done.returncode != 0:
        print("\n".join(line for line in done.stdout.splitlines() if not re.match(
            r"clang-tidy|Enabled checks|\d+ warnings? generated", line)))
    return done.returncode


CHECKS = [
    ("clang-format", check_format),
    ("check-source", check_source),
    ("shellcheck", check_scripts),
    ("clang-tidy", check_tidy),
]


def check(tally):
    heading("checks")
    start = time.monotonic()
    passed, failed = 0, []
    for name, run in CHECKS:
        began = time.monotonic()
        ok = run() == 0
        print(f"  {name}: {'ok' if ok else 'FAILED'} ({time.monotonic() - began:.0f} s)", flush=True)
        if ok:
            passed += 1
        else:
            failed.append(name)
    tally.add("check", passed, failed, [], time.monotonic() - start)


def compile_commands():
    with open(os.path.join(ROOT, ASAN, "compile_commands.json"), encoding="utf-8") as f:
        for entry in json.load(f):
            source = os.path.relpath(os.path.join(entry["directory"], entry["file"]), ROOT)
            if source.startswith("src/"):
                yield source, entry["directory"], shlex.split(entry["command"])


def analyze_one(entry):
    source, directory, argv = entry
    argv = [a for a in argv if not a.startswith("-fsanitize")]
    argv[argv.index("-o") + 1] = "/dev/null"
    argv = [a for a in argv if a not in ("-MD", "-MMD")]
    for flag in ("-MQ", "-MF"):
        if flag in argv:
            at = argv.index(flag)
            del argv[at:at + 2]
    # Without optimization, which removes what is to be found.
    done = subprocess.run([*argv, "-O0", "-fanalyzer", "-Wno-error", "-fdiagnostics-plain-output"],
                          cwd=directory, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE,
                          text=True, check=False)
    return source, [line for line in done.stderr.splitlines() if "-Wanalyzer" in line]


def report_clang(out):
    heading("report: clang static analyzer")
    start = time.monotonic()
    done = tidy("-checks=-*,clang-analyzer-*,"
                "-clang-analyzer-security.insecureAPI.DeprecatedOrUnsafeBufferHandling")
    found = sorted({line for line in done.stdout.splitlines() if "[clang-analyzer" in line})
    with open(os.path.join(out, "clang-analyzer.txt"), "w", encoding="utf-8") as f:
        f.write("\n".join(found) + "\n")
    print(f"  {len(found)} remarks in {ASAN}/reports/clang-analyzer.txt"
          f" ({time.monotonic() - start:.0f} s)", flush=True)


def report_gcc(out):
    heading("report: gcc -fanalyzer")
    start, found = time.monotonic(), []
    with concurrent.futures.ThreadPoolExecutor(int(JOBS)) as pool:
        for _, lines in pool.map(analyze_one, compile_commands()):
            found += lines
    with open(os.path.join(out, "gcc-analyzer.txt"), "w", encoding="utf-8") as f:
        f.write("\n".join(found) + "\n")
    print(f"  {len(found)} remarks in {ASAN}/reports/gcc-analyzer.txt"
          f" ({time.monotonic() - start:.0f} s)", flush=True)


def report_cppcheck(out):
    heading("report: cppcheck")
    start = time.monotonic()
    path = os.path.join(out, "cppcheck.txt")
    with open(path, "w", encoding="utf-8") as f:
        call(["cppcheck", "-q", "-j", JOBS, "--enable=warning,portability,performance",
              "--inline-suppr", "--std=c11", "-Isrc", "src"], stdout=f, stderr=f)
    with open(path, encoding="utf-8") as f:
        n = sum(1 for line in f if ": warning:" in line or ": error:" in line or
                ": portability:" in line or ": performance:" in line)
    print(f"  {n} remarks in {ASAN}/reports/cppcheck.txt ({time.monotonic() - start:.0f} s)")


def reports():
    """Analyzers with opinions worth reading and too many false ones to obey."""
    out = os.path.join(ROOT, ASAN, "reports")
    os.makedirs(out, exist_ok=True)
    for run in (report_gcc, report_clang, report_cppcheck):
        run(out)


# Long ones need one build only. What an API server says is read by code that a sanitizer should watch;
# whether programs behave the same with and without a standby is the interpreters' affair.
SANITIZED_ONLY = ("test_kube_*.py",)
RELEASE_ONLY = ("test_setup.py", "test_standby.py", "test_standby_compile.py",
                "test_resident.py")
CLUSTER_ONLY = ("test_deploy_kubernetes.py",)


def sanitized_tests(tally):
    stack_tests(tally)
    pytest(tally, ASAN, "tests/integration", without=RELEASE_ONLY, more=["-m", "not alone"])
    pytest(tally, ASAN, without=CLUSTER_ONLY)


def release_tests(tally):
    chaos_tests(tally)
    pytest(tally, RELEASE, "tests/integration", without=SANITIZED_ONLY,
           more=["-m", "not long and not alone"])
    # All others ran with what a sanitizer sees; the load, the faults and the attacks run on this build.
    pytest(tally, RELEASE, without=CLUSTER_ONLY, more=["-m", "release_only"])
    contract(tally, RELEASE)


def run_all(tally, seconds):
    if build(tally, "build-asan", ASAN) and build(tally, "build", RELEASE):
        # Alone: limits are held to milliseconds, and a census is taken of the host.
        meson_tests(tally, ASAN, without=["stack", "faults"])
        meson_tests(tally, RELEASE, ["sandbox"])
        beside(lambda: sanitized_tests(tally), lambda: release_tests(tally))
        pytest(tally, RELEASE, "tests/integration", more=["-m", "alone"])
        pytest(tally, RELEASE, "tests/hostile")
        cluster_tests(tally, short=True)
    if build(tally, "build-fuzz", FUZZ):
        fuzz(tally, seconds)
        check(tally)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["all", "quick", "stack", "cluster", "chaos", "hostile",
                                         "check", "fuzz", "reports"])
    parser.add_argument("--seconds", type=int, default=10, help="for each fuzz target")
    parser.add_argument("--short", action="store_true", help="of cluster: what takes a few minutes")
    args = parser.parse_args()
    tally = Tally()
    if args.what == "reports":
        reports()
        return 0
    if args.what == "all":
        run_all(tally, args.seconds)
    elif args.what == "quick":
        if build(tally, "build-asan", ASAN):
            meson_tests(tally, ASAN, without=["stack", "faults"])
            pytest(tally, ASAN, "tests/integration", without=RELEASE_ONLY)
    elif args.what == "stack":
        if build(tally, "build-asan", ASAN):
            stack_tests(tally)
    elif args.what == "cluster":
        if build(tally, "build", RELEASE):
            cluster_tests(tally, args.short)
    elif args.what == "chaos":
        if build(tally, "build", RELEASE):
            chaos_tests(tally)
    elif args.what == "hostile":
        if build(tally, "build", RELEASE):
            pytest(tally, RELEASE, "tests/hostile")
    elif args.what == "check":
        if build(tally, "build-fuzz", FUZZ):
            check(tally)
    elif args.what == "fuzz":
        fuzz(tally, args.seconds)
    return tally.finish()


if __name__ == "__main__":
    sys.exit(main())
