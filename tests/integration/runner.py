# SPDX-License-Identifier: Apache-2.0
"""Starts the real kiln-runner with its spawner, and speaks to it as a scheduler does."""

import os
import shutil
import socket
import subprocess
import tempfile
import uuid

import wire

ROOT = wire.ROOT
BUILD = os.path.abspath(os.environ.get("KILN_BUILD", os.path.join(ROOT, "build-asan")))
CREDIT = 8 << 20
OUTCOMES = ["none", "ok", "compile_error", "runtime_error", "signalled", "time_limit",
            "memory_limit", "output_limit"]
LIMITS = ["none", "cpu", "wall", "memory", "output"]
STDOUT, STDERR = 0, 1


def program(name):
    for path in (os.path.join(BUILD, name), os.path.join(BUILD, "src", name)):
        if os.access(path, os.X_OK):
            return path
    raise FileNotFoundError(f"{name} is not in {BUILD}: build it, or set KILN_BUILD")


class Result:
    """What came back for one task."""

    def __init__(self):
        self.accepted = self.busy = False
        self.compiled = None
        self.outputs = {}  # (run, stream): bytes
        self.order = []  # (run, stream, bytes) as they came
        self.runs = {}
        self.done = None
        self.sequence = 0

    @property
    def outcome(self):
        if self.compiled and (self.compiled["exit_code"] or self.compiled["limit_hit"]):
            return "compile_error"
        return OUTCOMES[self.runs[0]["outcome"]]

    @property
    def stdout(self):
        return self.outputs.get((0, STDOUT), b"")

    @property
    def stderr(self):
        return self.outputs.get((0, STDERR), b"")

    @property
    def run(self):
        return self.runs[0]

    def take(self, kind, m):
        if kind == "accepted":
            assert not self.accepted and not self.done
            self.accepted = True
        elif kind == "busy":
            self.busy = True
        elif kind == "compiled":
            assert self.accepted and not self.compiled and not self.runs
            self.compiled = m["result"]
        elif kind == "output":
            assert m["sequence"] == self.sequence, "sequence without gaps"
            assert m["run"] == len(self.runs), "output belongs to the run at hand"
            self.sequence += 1
            key = (m["run"], m["stream"])
            self.outputs[key] = self.outputs.get(key, b"") + m["bytes"]
            self.order.append((m["run"], m["stream"], m["bytes"]))
        elif kind == "run_done":
            assert m["run"] == len(self.runs), "runs end in order"
            self.runs[m["run"]] = m["result"]
        elif kind == "done":
            self.done = m


class Runner:
    def __init__(self, *args, slots=2, hello=True, credit=CREDIT, languages=None,
                 prefix=()):
        ours, theirs = socket.socketpair()
        self.languages_dir = languages or os.path.join(ROOT, "languages")
        self.log = tempfile.TemporaryFile()
        argv = [*prefix, program("kiln-runner"), "--connection-fd", str(theirs.fileno()), "--name", "test",
                "--slots", str(slots), "--languages", self.languages_dir,
                "--sandbox", program("kiln-sandbox"), *args]
        self.process = subprocess.Popen(argv, pass_fds=[theirs.fileno()], stderr=self.log)
        theirs.close()
        self.connection = wire.Connection(ours)
        self.tasks = {}
        self.heartbeats = []
        self.hello = None
        if hello:
            self.greet(credit)

    def greet(self, credit=CREDIT):
        self.connection.send("hello", protocol=1, version="test", credit_bytes=credit)
        frame = self.connection.receive(30)
        assert frame and frame[0] == "hello", f"{frame}\n{self.log_text()}"
        self.hello = frame[1]

    def log_text(self):
        # Not by reading: the position in the file is also the runner's, which would write there.
        return os.pread(self.log.fileno(), os.fstat(self.log.fileno()).st_size, 0).decode(errors="replace")

    def assign(self, language, code=None, *, files=None, entry=None, args=(), stdin=b"", limits=None,
               compile_limits=None, runs=None, tenant="default", lease_ms=30000, task=None,
               cold=False):
        """Sends ASSIGN, with CONTENT for what is big. Returns the task's id."""
        task = task or uuid.uuid4().bytes
        entry = entry or {"python": "main.py", "ruby": "main.rb", "c": "main.c", "java": "Main.java",
                          "bash": "main.sh", "cpp": "main.cpp"}.get(language, "main")
        files = dict(files or {})
        if code is not None:
            files[entry] = code.encode() if isinstance(code, str) else code
        runs = runs or [{"args": args, "stdin": stdin, "limits": limits, "cold": cold}]
        later = []
        room = 512 * 1024

        def inline(content, is_stdin, index):
            nonlocal room
            if len(content) <= room:
                room -= len(content)
                return content
            later.append((is_stdin, index, content))
            return b""

        program_ = {"language": language, "entry": entry,
                    "files": [{"name": name, "content": inline(content, False, i),
                               "size": len(content)}
                              for i, (name, content) in enumerate(files.items())],
                    "compile_limits": complete(compile_limits)}
        run_messages = [{"args": list(r.get("args", ())),
                         "stdin": inline(r.get("stdin", b""), True, i),
                         "stdin_size": len(r.get("stdin", b"")),
                         "limits": complete(r.get("limits")),
                         "cold": r.get("cold", False)} for i, r in enumerate(runs)]
        self.tasks[task] = Result()
        self.connection.send("assign", task=task, attempt=1, lease_ms=lease_ms, tenant=tenant,
                             program=program_, runs=run_messages)
        for is_stdin, index, content in later:
            for at in range(0, len(content), 256 * 1024):
                self.connection.send("content", task=task, is_stdin=is_stdin, index=index,
                                     bytes=content[at:at + 256 * 1024])
        return task

    def step(self, timeout=20):
        """Takes one frame. False at the end of the connection."""
        frame = self.connection.receive(timeout)
        if frame is None:
            return False
        kind, m = frame
        if kind == "heartbeat":
            self.heartbeats.append(m)
        else:
            self.tasks[m["task"]].take(kind, m)
        return True

    def wait(self, task, timeout=60):
        result = self.tasks[task]
        while not result.done and not result.busy:
            assert self.step(timeout), f"the connection ended\n{self.log_text()}"
        return result

    def run(self, language, code=None, **more):
        return self.wait(self.assign(language, code, **more))

    def wait_end(self, timeout=20):
        """Frames until the connection ends; then the exit code."""
        while self.step(timeout):
            pass
        return self.process.wait(timeout)

    def spawner_pid(self):
        path = f"/proc/{self.process.pid}/task/{self.process.pid}/children"
        with open(path, encoding="ascii") as f:
            for pid in f.read().split():
                with open(f"/proc/{pid}/comm", encoding="ascii") as comm:
                    if comm.read().strip() == "kiln-sandbox":
                        return int(pid)
        raise AssertionError("the runner has no spawner")

    def open_fds(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def rss_bytes(self):
        with open(f"/proc/{self.process.pid}/statm", encoding="ascii") as f:
            return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def close(self):
        """Ends it the orderly way and returns its exit code."""
        self.connection.close()
        try:
            return self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            self.log.close()


DEFAULTS = {"cpu_ms": 5000, "wall_ms": 15000, "memory_bytes": 256 << 20, "processes": 64,
            "output_bytes": 1 << 20, "disk_bytes": -1, "file_bytes": -1, "open_files": -1,
            "stack_bytes": -1}


def complete(limits):
    return {**(DEFAULTS if limits is not None else dict.fromkeys(DEFAULTS, -1)), **(limits or {})}


def copy_languages(*names):
    """A folder with only these languages."""
    path = tempfile.mkdtemp(prefix="kiln-languages-")
    os.chmod(path, 0o755)
    for name in names:
        shutil.copy(os.path.join(ROOT, "languages", name + ".yaml"), path)
    shutil.copytree(os.path.join(ROOT, "languages", "standby"), os.path.join(path, "standby"))
    return path
