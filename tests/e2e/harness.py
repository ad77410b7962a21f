# SPDX-License-Identifier: Apache-2.0
"""Starts real servers and talks to them. Python's standard library only."""

import base64
import ctypes
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import time
import urllib.parse

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.abspath(os.environ.get("KILN_BUILD", os.path.join(ROOT, "build")))
NOBODY = 65534
FINAL = ("done", "cancelled", "expired", "failed")
COMPILED = ("c", "cpp", "java", "go")


def _sanitized():
    try:
        with open(os.path.join(BUILD, "meson-info", "intro-buildoptions.json"), encoding="utf-8") as f:
            return any(o["name"] == "b_sanitize" and o["value"] != "none" for o in json.load(f))
    except OSError:
        return False


SANITIZED = _sanitized()
# Time-outs are for a machine that is busy; on a sanitized build everything takes longer.
PATIENCE = 60 if SANITIZED else 30

# A build folder inside the source tree finds its languages by itself; any other is told.
LANGUAGES = {} if os.path.dirname(BUILD) == ROOT else {
    "KILN_LANGUAGES": os.path.join(ROOT, "languages")}

SANITIZER_MARKS = ("ERROR: AddressSanitizer", "ERROR: LeakSanitizer", ": runtime error: ",
                   "AddressSanitizer:DEADLYSIGNAL")

PR_SET_CHILD_SUBREAPER = 36
# What a dead server leaves behind becomes a child of this process, where it can be seen.
ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

servers = []  # all that were started and not yet stopped


def program(name):
    return os.path.join(BUILD, name)


def free_port():
    """Not one of those that the kernel gives to connections, which might have it before it is listened on."""
    while True:
        port = random.randrange(20000, 27000)
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def processes():
    """{pid: (parent, comm, state)} of everything on this machine."""
    found = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat", encoding="utf-8", errors="replace") as f:
                text = f.read()
        except OSError:
            continue
        comm = text[text.index("(") + 1:text.rindex(")")]
        rest = text[text.rindex(")") + 2:].split()
        found[int(entry)] = (int(rest[1]), comm, rest[0])
    return found


def descendants(pid, table=None):
    table = table or processes()
    found, grown = {pid}, True
    while grown:
        more = {p for p, (parent, _, _) in table.items() if parent in found} - found
        found |= more
        grown = bool(more)
    return found - {pid}


def reap():
    """Collects orphans that have ended; children that subprocess knows of are left to it."""
    table = processes()
    known = {s.process.pid for s in servers if s.process}
    for pid, (parent, _, state) in table.items():
        if parent == os.getpid() and state == "Z" and pid not in known:
            try:
                os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                pass


def wait_until(condition, seconds=None, every=0.02, what="condition"):
    end = time.monotonic() + (seconds or PATIENCE)
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"{what} did not come true in {seconds or PATIENCE} s"
        time.sleep(every)


def yaml_text(config, depth=0):
    lines = []
    for key, value in config.items():
        if isinstance(value, dict):
            lines += [f"{'  ' * depth}{key}:", yaml_text(value, depth + 1)]
        else:
            text = {True: "true", False: "false"}.get(value) if isinstance(value, bool) else value
            lines.append(f"{'  ' * depth}{key}: {text}")
    return "\n".join(lines)


def b64(data):
    return base64.b64encode(data).decode()


def clean_env(more=None):
    """For programs that are started: nothing of ours but what sanitizers and languages need. Making
    things beforehand would take time from each test: KILN_TEST_SETUP_DIR names a folder to do it."""
    keep = {k: os.environ[k] for k in ("ASAN_OPTIONS", "UBSAN_OPTIONS") if k in os.environ}
    return ({"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8",
             "KILN_SETUP_DIR": os.environ.get("KILN_TEST_SETUP_DIR", "none")}
            | LANGUAGES | keep | (more or {}))


class Response:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return f"<{self.status} {self.body[:600]!r}>"


class Client:
    """One address, perhaps one key; a new connection for each request unless kept."""

    def __init__(self, port, key=None, host="127.0.0.1"):
        self.host, self.port, self.key = host, port, key

    def request(self, method, path, body=None, headers=None, timeout=None):
        connection = http.client.HTTPConnection(self.host, self.port, timeout=timeout or PATIENCE + 60)
        headers = dict(headers or {})
        if self.key:
            headers.setdefault("Authorization", f"Bearer {self.key}")
        if body is not None and not isinstance(body, (bytes, str)):
            body = json.dumps(body)
        if isinstance(body, str):
            body = body.encode()
        if body is not None:
            headers.setdefault("Content-Type", "application/json")
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return Response(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def get(self, path, **kw):
        return self.request("GET", path, **kw)

    def post(self, path, body, **kw):
        return self.request("POST", path, body, **kw)

    def submit(self, language, code=None, headers=None, **fields):
        """Submits and returns the task's id; the answer must be the one that was promised."""
        body = {"language": language} | ({} if code is None else {"code": code}) | fields
        answer = self.post("/submit", body, headers=headers)
        assert answer.status == 201, answer
        task = answer.json
        assert task["status"] == "queued"
        assert answer.headers["Location"] == f"/result/{task['task_id']}"
        return task["task_id"]

    def result(self, task_id, wait=None):
        answer = self.get(f"/result/{task_id}" + ("" if wait is None else f"?wait={wait}"))
        assert answer.status == 200, answer
        check_shape(answer.json)
        return answer.json

    def wait(self, task_id, seconds=None):
        end = time.monotonic() + (seconds or PATIENCE)
        while True:
            task = self.result(task_id, wait=20)
            if task["status"] in FINAL:
                return task
            assert time.monotonic() < end, f"not final in time: {task}"

    def run(self, language, code=None, **fields):
        return self.wait(self.submit(language, code, **fields))

    def cancel(self, task_id):
        return self.request("DELETE", f"/tasks/{task_id}")

    def until_running(self, task_id):
        def running():
            task = self.result(task_id)
            assert task["status"] in ("queued", "running"), task
            return task if task["status"] == "running" else None
        return wait_until(running, what=f"{task_id} running")


class Server(Client):
    def __init__(self, directory, config=None, args=(), slots=2, user=None, env=None):
        super().__init__(free_port())
        self.directory = str(directory)
        self.data = os.path.join(self.directory, "data")
        self.log_path = os.path.join(self.directory, "serve.log")
        self.user, self.process, self.env = user, None, env or {}
        os.makedirs(self.data, exist_ok=True)
        self.argv = [program("kiln"), "serve", "--listen", f"127.0.0.1:{self.port}",
                     "--data-dir", self.data, "--slots", str(slots), *args]
        if config:
            path = os.path.join(self.directory, "kiln.yaml")
            with open(path, "w", encoding="utf-8") as f:
                f.write(yaml_text(config) + "\n")
            self.argv += ["--config", path]
        if user is not None:
            os.chown(self.data, user, user)
            self.argv = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups",
                         *self.argv]

    def start(self, ready=True):
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log, env=clean_env(self.env), cwd="/",
                                            start_new_session=True)
        if self not in servers:
            servers.append(self)
        if ready:
            self.wait_ready()
        return self

    def wait_ready(self):
        def ready():
            assert self.process.poll() is None, f"ended with {self.process.poll()}:\n{self.log_tail()}"
            try:
                return self.get("/readyz", timeout=5).status == 200
            except OSError:
                return False
        wait_until(ready, what="/readyz")

    def tree(self):
        return descendants(self.process.pid) | {self.process.pid}

    def pids(self, comm):
        table = processes()
        return sorted(p for p in descendants(self.process.pid, table) | {self.process.pid}
                      if p in table and table[p][1] == comm)

    def spawners(self):
        """The kiln-sandbox processes that make sandboxes, not the first process of each."""
        table = processes()
        ours = descendants(self.process.pid, table)
        runners = {p for p in ours if table[p][1] == "kiln-runner"}
        return [p for p in ours if table[p][1] == "kiln-sandbox" and table[p][0] in runners]

    def resident_bytes(self):
        """Of kiln's own processes (not of tasks), shared pages counted once each."""
        total = 0
        for comm in ("kiln", "kiln-runner", "kiln-sandbox"):
            for pid in self.pids(comm):
                try:
                    with open(f"/proc/{pid}/smaps_rollup", encoding="utf-8") as f:
                        total += sum(int(line.split()[1]) * 1024 for line in f
                                     if line.startswith("Pss:"))
                except OSError:
                    pass
        return total

    def log_text(self):
        try:
            with open(self.log_path, encoding="utf-8", errors="replace") as f:
                return f.read()
        except OSError:
            return ""

    def log_tail(self):
        return self.log_text()[-8000:]

    def rank(self, pid):
        if pid == self.process.pid:  # the keeper, which would start the others again
            return -1
        order = ["kiln", "kiln-runner", "kiln-sandbox"]
        try:
            with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as f:
                comm = f.read().strip()
        except OSError:
            comm = ""
        return order.index(comm) if comm in order else len(order)

    def kill(self, pids=None):
        """SIGKILL for everything of this server at once, or for these processes. From the top down:
        a server that still lives would take the end of a task below for the task's own."""
        for pid in pids or sorted(self.tree(), key=self.rank):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        if pids is None:
            self.process.wait()
            self.process = None
            self.expect_nothing_left()

    def stop(self, seconds=None):
        if self.process is None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(seconds or PATIENCE + 40)  # more than the server's own grace
        except subprocess.TimeoutExpired:
            tail = self.log_tail()
            self.kill()
            raise AssertionError(f"did not end after SIGTERM:\n{tail}") from None
        self.process = None
        assert code == 0, f"ended with {code}:\n{self.log_tail()}"
        self.expect_nothing_left()

    def expect_nothing_left(self):
        others = set()
        for server in servers:
            if server.process:
                others |= server.tree()

        def left():
            reap()
            table = processes()
            return {p: table[p] for p in descendants(os.getpid(), table) - others if p in table}
        try:
            wait_until(lambda: not left(), 10, what="end of all processes")
        except AssertionError:
            remaining = left()
            for pid in remaining:
                os.kill(pid, signal.SIGKILL)
            raise AssertionError(f"processes were left behind: {remaining}") from None

    def expect_clean_log(self):
        text = self.log_text()
        for mark in SANITIZER_MARKS:
            at = text.find(mark)
            assert at < 0, text[max(0, at - 500):at + 6000]

    def close(self):
        try:
            self.stop()
            self.expect_clean_log()
        finally:
            if self.process is not None:
                self.kill()
            servers.remove(self)


def url_quote(text):
    return urllib.parse.quote(text, safe="")


# ---- the table "which fields hold" ----

FIELDS = ("outcome", "exit_code", "signal", "error", "stdout", "stderr", "usage", "compile",
          "limit_hit")
LIMITS_HIT = ("cpu_ms", "wall_ms", "memory_bytes", "output_bytes")


def check_shape(task):
    """Holds a result against the table of the API: what must be there, and what must be null."""
    for name in ("task_id", "language", "status", "attempt", "timeline"):
        assert task[name] is not None, (name, task)
    assert task["timeline"]["queued_at"].endswith("Z")
    missing = [f for f in FIELDS if f not in task]
    assert not missing, (missing, task)
    holds = {f: task[f] is not None for f in FIELDS}
    status, outcome = task["status"], task["outcome"]

    def expect(**want):
        got = {k: holds[k] for k in want}
        assert got == want, (status, outcome, got, want, task)

    if status in ("queued", "running"):
        assert not any(holds.values()), task
        return
    assert task["timeline"]["finished_at"].endswith("Z")
    if status == "done":
        compiled = task["language"] in COMPILED
        if outcome in ("ok", "runtime_error"):
            expect(exit_code=True, signal=False, stdout=True, stderr=True, usage=True,
                   compile=compiled, error=False, limit_hit=False)
            assert (task["exit_code"] == 0) == (outcome == "ok"), task
        elif outcome == "compile_error":
            expect(exit_code=False, signal=False, usage=False, compile=True, error=False)
            assert (task["stdout"], task["stderr"]) == ("", ""), task
        elif outcome == "signalled":
            expect(exit_code=False, signal=True, stdout=True, stderr=True, usage=True,
                   compile=compiled, error=False, limit_hit=False)
            assert task["signal"].startswith("SIG"), task
        else:
            assert outcome in ("time_limit", "memory_limit", "output_limit"), task
            expect(exit_code=False, signal=False, stdout=True, stderr=True, usage=True,
                   compile=compiled, error=False, limit_hit=True)
            assert task["limit_hit"] in LIMITS_HIT, task
    elif status in ("cancelled", "expired"):
        expect(outcome=False, exit_code=False, signal=False, error=False, limit_hit=False)
    else:
        assert status == "failed", task
        expect(outcome=False, exit_code=False, signal=False, stdout=False, stderr=False,
               usage=False, compile=False, error=True, limit_hit=False)
        assert task["error"]["code"] and task["error"]["message"], task


def problem(answer, status, *words):
    """An error of the API: RFC 9457, the right status, and a message that names what is wrong."""
    assert answer.status == status, answer
    assert answer.headers["Content-Type"].split(";")[0] == "application/problem+json", answer
    body = answer.json
    assert body["status"] == status, body
    assert body["title"] and body["detail"], body
    text = json.dumps(body, ensure_ascii=False)
    for word in words:
        assert word in text, (word, body)
    return body
