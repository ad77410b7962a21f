# SPDX-License-Identifier: Apache-2.0
"""Loads on a Kiln, the floor beside them, and the lines of the table."""

import json
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time

from programs import PROGRAMS, UNIQUE
from servers import CLEAN_ENV, ROOT

CLIENTS = (1, 4, 16, 64)
PACED_SHARE = 0.3
PACED_CLIENTS = 64
SETTLE_S = 1.0  # after a load, until reserves are as they are under the next one


def say(text=""):
    print(text, flush=True)


def ports(server):
    return [word for port in server.ports for word in ("--port", str(port))]


class Bench:
    def __init__(self, build, quick):
        self.build = os.path.abspath(build)
        self.scale = 0.1 if quick else 1.0
        self.scratch = tempfile.mkdtemp(prefix="kiln-bench-floor-")

    def tool(self, name):
        return os.path.join(self.build, "bench", name)

    def seconds(self, full):
        return max(0.5, full * self.scale)

    def json_of(self, argv):
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, env=CLEAN_ENV, check=False)
        if done.returncode != 0:
            sys.exit(f"{' '.join(argv)}\nended with {done.returncode}: {done.stderr}")
        return json.loads(done.stdout)

    def body(self, language, code, **more):
        handle, path = tempfile.mkstemp(prefix=f"{language}-", suffix=".json", dir=self.scratch)
        with open(handle, "w", encoding="utf-8") as f:
            json.dump({"language": language, "code": code} | more, f)
        return path

    def floor(self, program):
        """The program built as the language file says and started bare, one after the other; and its
        rate with one such row for each processor. One that was never seen is built each time."""
        directory = tempfile.mkdtemp(dir=self.scratch)
        if program.comment:
            return self.floor_unseen(program, directory)
        with open(os.path.join(directory, program.source), "w", encoding="utf-8") as f:
            f.write(program.code)
        compile_argv, run_argv = language_argv(program.language, program.source)
        if compile_argv:
            subprocess.run(compile_argv, cwd=directory, env=CLEAN_ENV, check=True)
        if run_argv[0].startswith("./"):
            run_argv[0] = os.path.join(directory, run_argv[0][2:])
        argv = [self.tool("bench-floor"), "--dir", directory]
        floor = self.json_of([*argv, str(self.seconds(3)), "hello", *run_argv])
        rows = [subprocess.Popen([*argv, str(self.seconds(3)), "hello", *run_argv], env=CLEAN_ENV,
                                 stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
                for _ in range(os.cpu_count() or 1)]
        floor["rps_all"] = sum(json.loads(row.communicate()[0])["rps"] for row in rows)
        return floor

    def floor_unseen(self, program, directory):
        before, start, times = children_cpu_ms(), time.monotonic(), []
        while len(times) < 5 or time.monotonic() < start + self.seconds(5):
            times.append(self.bare(program, directory, time.monotonic_ns()))
        n, seconds = len(times), time.monotonic() - start
        times.sort()
        return {"n": n, "rps": n / seconds, "cpu_ms": (children_cpu_ms() - before) / n} | {
            f"p{share}_ms": times[-(-n * share // 100) - 1] for share in (50, 95, 99)}

    def bare(self, program, directory, number):
        """Compile and run, bare; milliseconds."""
        compile_argv, run_argv = language_argv(program.language, program.source)
        with open(os.path.join(directory, program.source), "w", encoding="utf-8") as f:
            f.write(program.text(number))
        start = time.monotonic()
        for argv in (compile_argv, run_argv):
            done = subprocess.run(argv, cwd=directory, env=CLEAN_ENV, check=True,
                                  stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        if done.stdout != b"hello\n":
            sys.exit(f"{program.title}: bare it printed {done.stdout}")
        return (time.monotonic() - start) * 1000

    def load(self, server, body, seconds, clients, rate=None, expect="hello\\n", extra=()):
        argv = [self.tool("bench-load"), *ports(server), "--clients", str(clients), "--seconds",
                f"{seconds:.3f}", *extra]
        if body:
            argv += ["--body", body]
        if rate:
            argv += ["--rate", f"{rate:.3f}"]
        if expect:
            argv += ["--expect", expect]
        parts_of = getattr(server, "cpu_parts", dict)  # a cluster of pods has none here
        before, parts = server.cpu_ms(), parts_of()
        told = self.json_of(argv)
        told["clients"] = clients
        told["cpu_ms"] = (server.cpu_ms() - before) / max(1, told["n"])
        told["cpu_parts_ms"] = {name: (ms - parts[name]) / max(1, told["n"])
                                for name, ms in parts_of().items()}
        if told["errors"]:
            say(f"    {told['errors']} errors, the first: {told['first_error']}")
        return told

    def closed(self, server, body, clients, seconds, extra=()):
        told = self.load(server, body, self.seconds(seconds), clients, extra=extra)
        line(f"{clients} client{'s' if clients > 1 else ''}", told)
        return told

    def paced(self, server, body, rate, seconds, extra=(), name=None):
        """After a while of the same load, so that reserves have the size that it makes them have."""
        time.sleep(self.seconds(SETTLE_S))
        self.load(server, body, self.seconds(2), PACED_CLIENTS, rate=rate, extra=extra)
        told = self.load(server, body, self.seconds(seconds), PACED_CLIENTS, rate=rate, extra=extra)
        line(name or f"paced {rate:.1f}/s", told)
        return told

    def rates(self, server, program, body, clients=CLIENTS, seconds=5, paced_s=10, extra=()):
        """Throughput by clients, and the latency at a share of the best of it."""
        if program.comment:
            extra = (*extra, "--unique", UNIQUE)
        self.load(server, body, self.seconds(2), 4, extra=extra)  # warm: compile cache, page cache
        closed = [self.closed(server, body, n, seconds, extra) for n in clients]
        saturation = max(c["rps"] for c in closed)
        for one in closed:
            if one["clients"] == 16 and one["cpu_parts_ms"]:
                say("  CPU of that at 16:     " + ", ".join(f"{name} {ms:.2f}" for name, ms in one["cpu_parts_ms"].items()))
        return {"closed": closed, "saturation": saturation,
                "paced": self.paced(server, body, saturation * PACED_SHARE, paced_s, extra)}

    def program(self, server, program):
        say(f"\n{program.title}")
        result = {"key": program.key, "language": program.language, "title": program.title,
                  "floor": self.floor(program)}
        line("bare", result["floor"])
        result |= self.rates(server, program, self.body(program.language, program.text()))
        result["resident_mib"] = server.resident_mib()
        say(f"  {'paced p50 over bare':22} {result['paced']['p50_ms'] / result['floor']['p50_ms']:9.2f} times;"
            f" bare, one row per processor: {result['floor']['rps_all']:.1f}/s")
        return result

    def sandbox(self):
        """A sandbox made, used once and destroyed, without a server, beside the program alone."""
        say("\nStatic C hello, by a spawner without a server: a box is made, used once, removed")
        directory = tempfile.mkdtemp(dir=self.scratch)
        path = os.path.join(directory, "main")
        with open(f"{path}.c", "w", encoding="utf-8") as f:
            f.write(PROGRAMS[0].code)
        subprocess.run(["gcc", "-O2", "-static", "-o", path, f"{path}.c"], env=CLEAN_ENV, check=True)
        result = {"floor": self.json_of([self.tool("bench-floor"), str(self.seconds(3)), "hello", path])}
        line("bare", result["floor"])
        for rung in ("auto", "rlimit"):
            told = self.json_of([self.tool("bench-sandbox"), os.path.join(self.build, "kiln-sandbox"),
                                 str(max(200, int(5000 * self.scale))), "4", rung, path])
            result[rung] = told["start_to_exited"] | {"rps": told["per_second"], "rung": told["rung"],
                                                      "cpu_ms": told["cpu_ms_per_task"]}
            line(f"sandbox, {told['rung']}", result[rung])
        return result

    def turns(self, server, program):
        """A bare compile and run, and a task of a program that was never seen, in turn."""
        directory = tempfile.mkdtemp(dir=self.scratch)
        bare, tasks, cpu_ms = [], [], 0
        end = time.monotonic() + self.seconds(10)
        while len(tasks) < 5 or time.monotonic() < end:
            number = time.monotonic_ns()
            bare.append(self.bare(program, directory, number))
            before, start = server.cpu_ms(), time.monotonic()
            status, told = server.request("POST", "/submit?wait=60",
                                          {"language": program.language, "code": program.text(number)})
            tasks.append((time.monotonic() - start) * 1000)
            cpu_ms += server.cpu_ms() - before
            if status != 200 or told["stdout"] != "hello\n" or told["compile"]["cached"]:
                sys.exit(f"{program.title} failed: {told}")
        return {"n": len(tasks), "bare_ms": statistics.median(bare), "p50_ms": statistics.median(tasks),
                "cpu_ms": cpu_ms / len(tasks)}

    def unseen(self, server, program, clients=(16,)):
        say(f"\n{program.title}")
        turns = self.turns(server, program)
        say(f"  {'in turn with bare':22} {turns['p50_ms']:9.2f} ms, bare {turns['bare_ms']:.2f} ms:"
            f" {turns['p50_ms'] / turns['bare_ms']:.2f} times; CPU {turns['cpu_ms']:.2f} ms")
        result = {"key": program.key, "language": program.language, "title": program.title,
                  "turns": turns, "floor": {"p50_ms": turns["bare_ms"]}}
        return result | self.rates(server, program, self.body(program.language, program.text()), clients)


def children_cpu_ms():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (used.ru_utime + used.ru_stime) * 1000


def language_argv(language, source):
    """The compile and run argument vectors of languages/NAME.yaml, with the default entry."""
    with open(os.path.join(ROOT, "languages", f"{language}.yaml"), encoding="utf-8") as f:
        text = f.read()

    def argv(step):
        section = re.search(rf"^{step}:(.*?)(?=^\S|\Z)", text, re.M | re.S)
        if not section:
            return None
        flow = re.search(r"argv:\s*\[(.*?)\]", section.group(1), re.S)
        block = re.search(r"argv:\s*\n((?:\s+- [^\n]*\n)+)", section.group(1))
        if flow:
            words = flow.group(1).replace("\n", " ").split(",")
        elif block:
            words = [item.strip()[2:] for item in block.group(1).splitlines()]
        else:
            sys.exit(f"languages/{language}.yaml: no argv for {step}")
        names = {"{entry}": source, "{sources}": source, "{stem}": os.path.splitext(source)[0],
                 "{memory_mib}": "512"}
        words = [w.strip().strip("'\"") for w in words]
        words = [w for w in words if "{setup}" not in w]
        for name, value in names.items():
            words = [w.replace(name, value) for w in words]
        return words
    return argv("compile"), argv("run")


def heading():
    say(f"\n  {'':22} {'p50 ms':>9} {'p95 ms':>9} {'p99 ms':>9} {'per second':>10}"
        f" {'CPU ms':>9} {'tasks':>7} {'errors':>7}")


def line(name, told):
    cpu = f"{told['cpu_ms']:9.2f}" if told.get("cpu_ms") is not None else f"{'':9}"
    say(f"  {name:22} {told['p50_ms']:9.2f} {told['p95_ms']:9.2f} {told['p99_ms']:9.2f}"
        f" {told['rps']:10.1f} {cpu} {told.get('n', 0):7d}"
        + (f" {told['errors']:7d}" if "errors" in told else ""))


def show_figures(report, figures):
    """Name, value, unit, sign, target; and, where there is one, how many times the bare floor it is."""
    say("\nFigures")
    report["figures"] = []
    for name, value, unit, sign, target, *times in figures:
        met = value <= target if sign == "<=" else value >= target
        report["figures"].append({"name": name, "value": round(value, 3), "unit": unit,
                                  "target": f"{sign} {target}", "met": met}
                                 | ({"times_floor": round(times[0], 3)} if times else {}))
        say(f"  {name:50} {value:10.2f} {unit:5} {sign} {target:<6} {'met' if met else 'MISSED':6}"
            + (f"  {times[0]:6.2f} times bare" if times else ""))


def save(report, name, path=None):
    if not path:
        folder = os.path.join(ROOT, "bench", "reports")
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{name}.json")
    with open(path, "w", encoding="utf-8") as f:
        json.dump(report, f, indent=2)
        f.write("\n")
    say(f"\n{path if os.path.relpath(path, ROOT).startswith('..') else os.path.relpath(path, ROOT)}")
