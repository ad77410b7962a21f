# SPDX-License-Identifier: Apache-2.0
"""Loads on a Kiln, the floor beside them, and the lines of the table."""

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time

from servers import CLEAN_ENV, ROOT

CLIENTS = (1, 4, 16)
PACED_SHARE = 0.3
PACED_CLIENTS = 64

PROGRAMS = [
    ("c", "C hello, compiled before", "main.c",
     '#include <stdio.h>\n\nint main(void)\n{\n\tputs("hello");\n\treturn 0;\n}\n'),
    ("python", "Python hello", "main.py", 'print("hello")\n'),
    ("javascript", "JavaScript hello", "main.js", 'console.log("hello")\n'),
    ("java", "Java hello, compiled before", "Main.java",
     'public class Main {\n    public static void main(String[] args) {\n'
     '        System.out.println("hello");\n    }\n}\n'),
]

# Compiled each time: the text of a comment is another one in each.
UNSEEN = [
    ("c", "C hello", "main.c", PROGRAMS[0][3]),
    ("cpp", "C++ hello with bits/stdc++.h", "main.cpp",
     '#include <bits/stdc++.h>\n\nint main()\n{\n\tstd::cout << "hello\\n";\n}\n'),
    ("java", "Java hello", "Main.java", PROGRAMS[3][3]),
]


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
        argv = [self.tool("bench-load"), *ports(server), "--clients", str(clients), "--seconds",
                f"{seconds:.3f}", *extra]
        if body:
            argv += ["--body", body]
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

    def sandbox(self):
        """A sandbox made, used once and destroyed, without a server, beside the program alone."""
        say("\nStatic C hello, by a spawner without a server: a box is made, used once, removed")
        directory = tempfile.mkdtemp(dir=self.scratch)
        path = os.path.join(directory, "main")
        with open(f"{path}.c", "w", encoding="utf-8") as f:
            f.write(PROGRAMS[0][3])
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

    def unseen(self, server, entry):
        """A bare compile and run, and a task of a program that was never seen, in turn."""
        language, title, source, code = entry
        directory = tempfile.mkdtemp(dir=self.scratch)
        compile_argv, run_argv = language_argv(language, source)
        bare, tasks, cpu_ms = [], [], 0
        end = time.monotonic() + self.seconds(15)
        while len(tasks) < 5 or time.monotonic() < end:
            text = f"// {time.monotonic_ns()}\n{code}"
            with open(os.path.join(directory, source), "w", encoding="utf-8") as f:
                f.write(text)
            start = time.monotonic()
            for argv in (compile_argv, run_argv):
                done = subprocess.run(argv, cwd=directory, env=CLEAN_ENV, check=True,
                                      stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
            assert done.stdout == b"hello\n", done
            bare.append((time.monotonic() - start) * 1000)
            before, start = server.cpu_ms(), time.monotonic()
            status, told = server.request("POST", "/submit?wait=60", {"language": language, "code": text})
            tasks.append((time.monotonic() - start) * 1000)
            cpu_ms += server.cpu_ms() - before
            if status != 200 or told["stdout"] != "hello\n" or told["compile"]["cached"]:
                sys.exit(f"{title} failed: {told}")
        result = {"language": language, "title": title, "n": len(tasks),
                  "bare_ms": statistics.median(bare), "p50_ms": statistics.median(tasks),
                  "cpu_ms": cpu_ms / len(tasks)}
        say(f"  {title:32} {result['bare_ms']:9.1f} {result['p50_ms']:9.1f} "
            f"{result['p50_ms'] / result['bare_ms']:9.2f} {result['cpu_ms']:9.1f}")
        return result


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


def line(name, told):
    say(f"  {name:22} {told['p50_ms']:9.2f} {told['p95_ms']:9.2f} {told['p99_ms']:9.2f}"
        f" {told['rps']:10.1f} {told['cpu_ms']:9.2f}"
        + (f" {told['errors']:7d}" if "errors" in told else ""))


def show_figures(report, figures):
    say("\nFigures")
    report["figures"] = []
    for name, value, unit, sign, target in figures:
        met = value <= target if sign == "<=" else value >= target
        report["figures"].append({"name": name, "value": round(value, 3), "unit": unit,
                                  "target": f"{sign} {target}", "met": met})
        say(f"  {name:50} {value:10.2f} {unit:5} {sign} {target:<6} {'met' if met else 'NOT MET'}")


def save(report, name):
    folder = os.path.join(ROOT, "bench", "reports")
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{name}.json")
    with open(path, "w", encoding="utf-8") as f:
        json.dump(report, f, indent=2)
        f.write("\n")
    say(f"\n{os.path.relpath(path, ROOT)}")
