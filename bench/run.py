#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Measures Kiln beside the bare machine, in one run: see bench/README.md for what each figure is.

    bench/run.py --build build            the table, and a JSON file in bench/reports/
    bench/run.py --build build --quick    a tenth of the time, for a first look
    bench/run.py --build build --soak     memory over 100,000 tasks, and nothing else
"""

import argparse
import http.client
import json
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
CLEAN_ENV = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}
COMMS = ("kiln", "kiln-runner", "kiln-sandbox")
CLIENTS = (1, 4, 16)
PACED_SHARE = 0.3
PACED_CLIENTS = 64

PROGRAMS = [
    ("c", "C hello, compiled before", "main.c",
     '#include <stdio.h>\n\nint main(void)\n{\n\tputs("hello");\n\treturn 0;\n}\n'),
    ("python", "Python hello", "main.py", 'print("hello")\n'),
    ("java", "Java hello, compiled before", "Main.java",
     'public class Main {\n    public static void main(String[] args) {\n'
     '        System.out.println("hello");\n    }\n}\n'),
]


def say(text=""):
    print(text, flush=True)



# ---- processes ----

def stat_of(pid):
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as f:
        text = f.read()
    comm = text[text.index("(") + 1:text.rindex(")")]
    return comm, text[text.rindex(")") + 2:].split()


def tree(root):
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                parents[int(entry)] = int(stat_of(entry)[1][1])
            except OSError:
                pass
    found, grown = {root}, True
    while grown:
        more = {p for p, parent in parents.items() if parent in found} - found
        found |= more
        grown = bool(more)
    return found


class Server:
    """One kiln serve of the benchmark's own, in a folder of its own."""

    def __init__(self, build, slots, config=""):
        self.build, self.slots, self.config = build, slots, config
        self.directory = tempfile.mkdtemp(prefix="kiln-bench-")
        os.chmod(self.directory, 0o755)
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.process, self.start_ms = None, None

    def __enter__(self):
        argv = [os.path.join(self.build, "kiln"), "serve", "--listen", f"127.0.0.1:{self.port}",
                "--data-dir", os.path.join(self.directory, "data"), "--slots", str(self.slots)]
        if self.config:
            path = os.path.join(self.directory, "kiln.yaml")
            with open(path, "w", encoding="utf-8") as f:
                f.write(self.config)
            argv += ["--config", path]
        start = time.monotonic()
        log_path = os.path.join(self.directory, "serve.log")
        with open(log_path, "wb") as log:
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            env=CLEAN_ENV, cwd="/")
        while True:
            try:
                if self.request("GET", "/readyz")[0] == 200:
                    break
            except OSError:
                pass
            if self.process.poll() is not None or time.monotonic() - start > 30:
                with open(log_path, encoding="utf-8", errors="replace") as f:
                    sys.exit(f"kiln serve did not get ready:\n{f.read()[-3000:]}")
            time.sleep(0.005)
        self.start_ms = (time.monotonic() - start) * 1000
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    def request(self, method, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=90)
        try:
            headers = {"Content-Type": "application/json"} if body is not None else {}
            connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read() or b"null")
        finally:
            connection.close()

    def own(self):
        """Kiln's own processes; the first process of a sandbox is one of them."""
        found = {}
        for pid in tree(self.process.pid):
            try:
                comm, fields = stat_of(pid)
            except OSError:
                continue
            if comm in COMMS:
                found[pid] = (comm, fields)
        return found

    def cpu_ms(self):
        """CPU time of all long-lived processes and of all that they have waited for: a task's time
        goes to its sandbox's first process, and from there to the spawner, when they are reaped."""
        ticks = 0
        for _, fields in self.own().values():
            ticks += sum(int(fields[i]) for i in (11, 12, 13, 14))
        return ticks * 1000 / CLOCK_TICKS

    def resident_mib(self):
        """Proportional set size, so that pages shared by several processes count once."""
        kib = 0
        for pid in self.own():
            try:
                with open(f"/proc/{pid}/smaps_rollup", encoding="utf-8") as f:
                    kib += sum(int(line.split()[1]) for line in f if line.startswith("Pss:"))
            except OSError:
                pass
        return kib / 1024


# ---- measuring ----

class Bench:
    def __init__(self, args):
        self.args = args
        self.build = os.path.abspath(args.build)
        self.scale = 0.1 if args.quick else 1.0
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
        path = os.path.join(self.scratch, f"{language}.json")
        with open(path, "w", encoding="utf-8") as f:
            json.dump({"language": language, "code": code} | more, f)
        return path

    def floor(self, language, source, code):
        """Builds the program as the language file says, and starts it bare."""
        directory = os.path.join(self.scratch, language)
        os.makedirs(directory)
        with open(os.path.join(directory, source), "w", encoding="utf-8") as f:
            f.write(code)
        compile_argv, run_argv = language_argv(language, source)
        if compile_argv:
            subprocess.run(compile_argv, cwd=directory, env=CLEAN_ENV, check=True)
        if run_argv[0].startswith("./"):
            run_argv[0] = os.path.join(directory, run_argv[0][2:])
        return self.json_of([self.tool("bench-floor"), "--dir", directory,
                             str(self.seconds(5)), "hello", *run_argv])

    def load(self, server, body, seconds, clients, rate=None, expect="hello\\n", extra=()):
        argv = [self.tool("bench-load"), "--port", str(server.port), "--body", body, "--clients",
                str(clients), "--seconds", f"{seconds:.3f}", *extra]
        if rate:
            argv += ["--rate", f"{rate:.3f}"]
        if expect:
            argv += ["--expect", expect]
        before = server.cpu_ms()
        told = self.json_of(argv)
        told["clients"] = clients
        told["cpu_ms"] = (server.cpu_ms() - before) / max(1, told["n"])
        if told["errors"]:
            say(f"    {told['errors']} errors, the first: {told['first_error']}")
        return told

    def program(self, server, entry):
        language, title, source, code = entry
        say(f"\n{title}")
        result = {"language": language, "title": title, "floor": self.floor(language, source, code)}
        line("bare", result["floor"])
        body = self.body(language, code)
        self.load(server, body, self.seconds(2), 4)  # warm: compile cache, page cache
        result["closed"] = []
        for clients in CLIENTS:
            told = self.load(server, body, self.seconds(8), clients)
            result["closed"].append(told)
            line(f"{clients} client{'s' if clients > 1 else ''}", told)
        saturation = max(c["rps"] for c in result["closed"])
        result["paced"] = self.load(server, body, self.seconds(12), PACED_CLIENTS,
                                    rate=saturation * PACED_SHARE)
        line(f"paced {saturation * PACED_SHARE:.0f}/s", result["paced"])
        result["resident_mib"] = server.resident_mib()
        return result

    def submit_only(self):
        """All slots are taken by tasks that sleep: what is measured is accepting and storing."""
        config = "queue_max: 2000000\n"
        with Server(self.build, 1, config) as server:
            status, task = server.request("POST", "/submit", {
                "language": "bash", "code": "sleep 50", "limits": {"wall_ms": 60000}})
            if status != 201:
                sys.exit(f"could not occupy the slot: {task}")
            while server.request("GET", f"/result/{task['task_id']}")[1]["status"] != "running":
                time.sleep(0.02)
            body = self.body("c", PROGRAMS[0][3])
            told = self.load(server, body, self.seconds(10), 16, expect=None,
                             extra=("--path", "/submit", "--status", "201"))
            # What is queued need not be run.
            for pid in tree(server.process.pid):
                os.kill(pid, signal.SIGKILL)
            return told

    def soak(self, tasks):
        points = []
        with Server(self.build, self.args.slots) as server:
            body = self.body("c", PROGRAMS[0][3])
            self.load(server, body, 2, 4)
            process = subprocess.Popen(
                [self.tool("bench-load"), "--port", str(server.port), "--body", body, "--clients", "16",
                 "--requests", str(tasks), "--seconds", "86400", "--expect", "hello\\n"],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, env=CLEAN_ENV)
            start = time.monotonic()
            while process.poll() is None:
                points.append((time.monotonic() - start, server.resident_mib()))
                time.sleep(2)
            told = json.loads(process.stdout.read())
            points.append((time.monotonic() - start, server.resident_mib()))
        return {"tasks": told["n"], "errors": told["errors"], "rps": told["rps"], "curve": [
            {"tasks": round(told["n"] * at / points[-1][0]), "resident_mib": round(mib, 2)}
            for at, mib in points]}


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
        for name, value in names.items():
            words = [w.replace(name, value) for w in words]
        return words
    return argv("compile"), argv("run")


def line(name, told):
    say(f"  {name:14} {told['p50_ms']:9.2f} {told['p95_ms']:9.2f} {told['p99_ms']:9.2f}"
        f" {told['rps']:10.1f} {told['cpu_ms']:9.2f}"
        + (f" {told['errors']:7d}" if "errors" in told else ""))


def machine():
    def first(argv):
        try:
            done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                  check=False, env=CLEAN_ENV)
            return done.stdout.splitlines()[0] if done.stdout else ""
        except OSError:
            return "not installed"
    model = ""
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        for text in f:
            if text.startswith("model name"):
                model = text.split(":", 1)[1].strip()
                break
    return {"cpu": model, "cores": os.cpu_count(), "kernel": platform.release(),
            "gcc": first(["gcc", "--version"]), "python": first(["/usr/bin/python3", "--version"]),
            "java": first(["/usr/bin/java", "-version"])}


def figures(report):
    """The project's own targets, on this machine in this run."""
    by_language = {p["language"]: p for p in report["programs"]}
    c, python = by_language["c"], by_language["python"]
    one, sixteen = c["closed"][0], c["closed"][-1]
    yield ("C hello over the bare floor, one client, p50", one["p50_ms"] - c["floor"]["p50_ms"],
           "ms", "<=", 2.5)
    yield ("Python hello over the bare floor, one client, p50",
           python["closed"][0]["p50_ms"] - python["floor"]["p50_ms"], "ms", "<=", 4.0)
    yield "C hello, 16 clients", sixteen["rps"], "/s", ">=", 500
    yield "C hello, 16 clients, p99 over p50", sixteen["p99_ms"] / sixteen["p50_ms"], "times", "<=", 5
    yield ("errors, all runs together", sum(t["errors"] for p in report["programs"]
                                            for t in [*p["closed"], p["paced"]]), "", "<=", 0)
    yield "submit alone, durable, 16 clients", report["submit_only"]["rps"], "/s", ">=", 8000
    yield "resident, idle", report["idle_mib"], "MiB", "<=", 60
    yield "start to ready", report["start_ms"], "ms", "<=", 1000


def show_figures(report):
    say("\nFigures")
    report["figures"] = []
    for name, value, unit, sign, target in figures(report):
        met = value <= target if sign == "<=" else value >= target
        report["figures"].append({"name": name, "value": round(value, 3), "unit": unit,
                                  "target": f"{sign} {target}", "met": met})
        say(f"  {name:50} {value:10.2f} {unit:5} {sign} {target:<6} {'met' if met else 'NOT MET'}")


def show_soak(soak):
    curve = soak["curve"]
    top = max(p["resident_mib"] for p in curve)
    say(f"\nMemory over {soak['tasks']} tasks at {soak['rps']:.0f}/s, {soak['errors']} errors")
    step = max(1, len(curve) // 20)
    for point in curve[::step] + ([curve[-1]] if (len(curve) - 1) % step else []):
        say(f"  {point['tasks']:8d} {point['resident_mib']:8.1f} MiB "
            f"{'#' * round(point['resident_mib'] / top * 50)}")


def save(report, name):
    folder = os.path.join(ROOT, "bench", "reports")
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{name}.json")
    with open(path, "w", encoding="utf-8") as f:
        json.dump(report, f, indent=2)
        f.write("\n")
    say(f"\n{os.path.relpath(path, ROOT)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default=os.path.join(ROOT, "build"))
    parser.add_argument("--slots", type=int, default=max(2, min(8, os.cpu_count() or 2)))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--soak", nargs="?", type=int, const=100_000, metavar="TASKS")
    args = parser.parse_args()
    bench = Bench(args)
    report = {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "machine": machine(),
              "slots": args.slots, "quick": args.quick}
    say(f"{report['machine']['cpu']}, {report['machine']['cores']} cores, kernel"
        f" {report['machine']['kernel']}; {args.slots} slots")
    try:
        if args.soak:
            report["soak"] = bench.soak(args.soak)
            show_soak(report["soak"])
            save(report, "soak")
            return
        with Server(bench.build, args.slots) as server:
            report["start_ms"] = server.start_ms
            time.sleep(2)
            report["idle_mib"] = server.resident_mib()
            _, task = server.request("POST", "/submit?wait=30", {"language": "bash", "code": "true"})
            report["isolation"] = task["isolation"]
            say(f"Isolation: {json.dumps(task['isolation'])}")
            say(f"\n  {'':14} {'p50 ms':>9} {'p95 ms':>9} {'p99 ms':>9} {'per second':>10}"
                f" {'CPU ms':>9} {'errors':>7}")
            report["programs"] = [bench.program(server, entry) for entry in PROGRAMS]
            report["after_mib"] = server.resident_mib()
        say("\nSubmit alone, slots occupied")
        report["submit_only"] = bench.submit_only()
        line("16 clients", report["submit_only"])
        say(f"\nResident: {report['idle_mib']:.1f} MiB idle, {report['after_mib']:.1f} MiB after the load."
            f" Ready {report['start_ms']:.0f} ms after the start.")
        show_figures(report)
        save(report, "quick" if args.quick else "full")
    finally:
        shutil.rmtree(bench.scratch, ignore_errors=True)


if __name__ == "__main__":
    main()
