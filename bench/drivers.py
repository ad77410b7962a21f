# SPDX-License-Identifier: Apache-2.0
"""Other systems under the same load: what each is sent, and where its answer has the output, is in drivers/."""

import http.client
import json
import os
import sys
import urllib.parse

from measure import CLIENTS, PACED_CLIENTS, PACED_SHARE, heading, line, say
from programs import PROGRAMS, UNIQUE, UNSEEN
from servers import CLOCK_TICKS, stat_of, tree

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "drivers")
TEXT_MAX = 800  # of an answer, in a message
KNOWN = {"title", "tried", "headers", "prepare", "request", "output", "programs"}


def names():
    return sorted(name[:-5] for name in os.listdir(FOLDER) if name.endswith(".json"))


def load(name):
    """Of drivers/NAME.json, or of a file."""
    path = os.path.join(FOLDER, f"{name}.json")
    if not os.path.exists(path):
        path = name
    try:
        with open(path, encoding="utf-8") as f:
            driver = json.load(f)
    except FileNotFoundError:
        sys.exit(f"there is no driver {name}: {', '.join(names())}, or a file")
    except ValueError as e:
        sys.exit(f"{path}: {e}")
    for problem in problems(driver):
        sys.exit(f"{path}: {problem}")
    return driver


def problems(driver):
    yield from (f"{name} is not known" for name in sorted(set(driver) - KNOWN))
    for name in ("request", "output", "programs"):
        if name not in driver:
            yield f"{name} is missing"
            return
    for step in [driver["request"], *driver.get("prepare", [])]:
        if not {"path", "body"} <= set(step):
            yield "a request needs a path and a body"
    known = {p.key: p for p in [*PROGRAMS, *UNSEEN]}
    for key, own in driver["programs"].items():
        if key not in known:
            yield f"{key} is no program: {', '.join(known)}"
        elif known[key].comment and driver.get("prepare") and own.get("prepare", True):
            yield f"{key} is another program each time, and cannot be prepared"


def fill(template, values):
    """Texts of a template with {{names}} filled in; one that is a name and nothing else becomes the value."""
    if isinstance(template, dict):
        return {fill(key, values): fill(value, values) for key, value in template.items()}
    if isinstance(template, list):
        return [fill(value, values) for value in template]
    if not isinstance(template, str):
        return template
    for name, value in values.items():
        if template == f"{{{{{name}}}}}":
            return value
        if isinstance(value, str):
            template = template.replace(f"{{{{{name}}}}}", value)
    return template


def at(answer, pointer):
    """Where an RFC 6901 pointer without escapes leads; None where that is nowhere."""
    for name in pointer.split("/")[1:]:
        try:
            answer = answer[int(name)] if isinstance(answer, list) else answer[name]
        except (KeyError, IndexError, TypeError, ValueError):
            return None
    return answer


class Refused(Exception):
    """The system did not do what the driver wants of it."""


class Target:
    """One program on a system behind a URL."""

    def __init__(self, driver, url, program):
        parts = urllib.parse.urlsplit(url)
        if parts.scheme != "http" or not parts.port or parts.path.strip("/"):
            sys.exit(f"{url}: http://ADDRESS:PORT is wanted")
        self.host, self.port, self.driver, self.program = parts.hostname, parts.port, driver, program
        own = driver["programs"][program.key]
        base = {"code": program.text(), "source": program.source, "language": program.language}
        self.values = base | {name: fill(value, base) for name, value in own.items()}
        self.prepares = own.get("prepare", True) and bool(driver.get("prepare"))

    def send(self, step):
        connection = http.client.HTTPConnection(self.host, self.port, timeout=90)
        headers = {"Content-Type": "application/json"} | self.driver.get("headers", {})
        try:
            connection.request(step.get("method", "POST"), step["path"], json.dumps(fill(step["body"], self.values)), headers)
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
        if answer.status != step.get("status", 200):
            raise Refused(f"{step['path']} answered {answer.status}: {body[:TEXT_MAX]!r}")
        try:
            return json.loads(body)
        except ValueError as e:
            raise Refused(f"{step['path']} answered no JSON ({e}): {body[:TEXT_MAX]!r}") from e

    def prepare(self):
        """What comes before the request that is measured, such as compiling; then one of that, which must be right."""
        for step in self.driver.get("prepare", []) if self.prepares else []:
            answer = self.send(step)
            for name, pointer in step.get("take", {}).items():
                where = fill(pointer, self.values)
                self.values[name] = at(answer, where)
                if self.values[name] is None:
                    raise Refused(f"nothing is at {where} of {json.dumps(answer)[:TEXT_MAX]}")
            # What a program's values refer to may be known only now.
            self.values = {name: fill(value, self.values) for name, value in self.values.items()}
        answer = self.send(self.driver["request"])
        if at(answer, self.driver["output"]) != "hello\n":
            raise Refused(f"at {self.driver['output']} there is no hello: {json.dumps(answer)[:TEXT_MAX]}")

    def arguments(self, scratch):
        """For bench-load."""
        request = self.driver["request"]
        path = os.path.join(scratch, f"driver-{self.program.key}.json")
        with open(path, "w", encoding="utf-8") as f:
            json.dump(fill(request["body"], self.values), f)
        argv = ["--host", self.host, "--port", str(self.port), "--method", request.get("method", "POST"),
                "--path", request["path"], "--body", path, "--status", str(request.get("status", 200)),
                "--output", self.driver["output"], "--expect", "hello\n"]
        for name, value in self.driver.get("headers", {}).items():
            argv += ["--header", f"{name}: {value}"]
        return argv + (["--unique", UNIQUE] if self.program.comment else [])


def cpu_ms(root):
    """Of a process, all below it, and all that these have waited for."""
    ticks = 0
    for pid in tree(root):
        try:
            ticks += sum(int(field) for field in stat_of(pid)[1][11:15])
        except OSError:
            pass
    return ticks * 1000 / CLOCK_TICKS


def measure(bench, target, pid):
    argv = target.arguments(bench.scratch)

    def load(name, seconds, clients, rate=None):
        before = cpu_ms(pid) if pid else None
        told = bench.json_of([bench.tool("bench-load"), *argv, "--clients", str(clients), "--seconds",
                              f"{bench.seconds(seconds):.3f}", *(["--rate", f"{rate:.3f}"] if rate else [])])
        told |= {"clients": clients, "cpu_ms": (cpu_ms(pid) - before) / max(1, told["n"]) if pid else None}
        if name:
            line(name, told)
        if told["errors"]:
            say(f"    {told['errors']} errors, the first: {told['first_error']}")
        return told

    load(None, 2, 4)
    result = {"closed": [load(f"{n} client{'s' if n > 1 else ''}", 5, n) for n in CLIENTS]}
    result["saturation"] = max(c["rps"] for c in result["closed"])
    rate = result["saturation"] * PACED_SHARE
    load(None, 2, PACED_CLIENTS, rate)
    result["paced"] = load(f"paced {rate:.1f}/s", 10, PACED_CLIENTS, rate)
    return result


def run(bench, name, url, pid, keys):
    driver, report = load(name), {"driver": name, "url": url, "programs": [], "failed": {}}
    tried = driver.get("tried")
    say(f"{driver.get('title', name)}; this driver was tried with "
        f"{tried if tried else 'nothing but the documented wire format'}")
    heading()
    for program in [*PROGRAMS, *UNSEEN]:
        if keys and program.key not in keys or program.key not in driver["programs"]:
            continue
        say(f"\n{program.title}")
        target = Target(driver, url, program)
        try:
            target.prepare()
        except (Refused, OSError) as e:
            report["failed"][program.key] = str(e)
            say(f"  failed: {e}")
            continue
        floor = bench.floor(program)
        line("bare", floor)
        measured = measure(bench, target, pid)
        report["programs"].append({"key": program.key, "title": program.title, "floor": floor} | measured)
        say(f"  {'paced p50 over bare':22} {measured['paced']['p50_ms'] / floor['p50_ms']:9.2f} times")
    return report
