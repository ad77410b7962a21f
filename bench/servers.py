# SPDX-License-Identifier: Apache-2.0
"""Starts Kiln as one program or as several, and reads what its processes cost."""

import http.client
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
CLEAN_ENV = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}
STANDBY_MIB = 256
COMMS = ("kiln", "kiln-runner", "kiln-sandbox")


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


def stolen():
    """Time that the host of this virtual machine gave to others, and all time; in ticks of all processors."""
    with open("/proc/stat", encoding="ascii") as f:
        ticks = [int(word) for word in f.readline().split()[1:9]]
    return ticks[7], sum(ticks)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Kiln:
    """Processes of Kiln's own in a folder of their own, behind one or more ports."""

    def __init__(self, build):
        self.build = os.path.abspath(build)
        self.directory = tempfile.mkdtemp(prefix="kiln-bench-")
        os.chmod(self.directory, 0o755)
        self.ports, self.processes = [], {}

    def program(self, name):
        return os.path.join(self.build, name)

    def path(self, name):
        return os.path.join(self.directory, name)

    def start(self, name, argv):
        with open(self.path(f"{name}.log"), "ab") as log:
            self.processes[name] = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log,
                                                    stderr=log, env=CLEAN_ENV, cwd="/")

    def await_ready(self, name, port, seconds=30):
        end = time.monotonic() + seconds
        while True:
            try:
                if request(port, "GET", "/readyz")[0] == 200:
                    return
            except OSError:
                pass
            if self.processes[name].poll() is not None or time.monotonic() > end:
                with open(self.path(f"{name}.log"), encoding="utf-8", errors="replace") as f:
                    sys.exit(f"{name} did not get ready:\n{f.read()[-3000:]}")
            time.sleep(0.005)

    def stop(self, name):
        process = self.processes.pop(name)
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(40)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def kill(self, name):
        """SIGKILL for all processes of this part; what is queued stays where it is."""
        process = self.processes.pop(name)
        for pid in tree(process.pid):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        process.wait()

    def __exit__(self, *_):
        for name in list(self.processes):
            self.stop(name)
        shutil.rmtree(self.directory, ignore_errors=True)

    def request(self, method, path, body=None):
        return request(self.ports[0], method, path, body)

    def own(self):
        """Kiln's own processes; the first process of a sandbox is one of them."""
        return {pid: (comm, fields) for pid, (comm, fields) in self.below() if comm in COMMS}

    def below(self):
        """All processes of all parts, whatever they run."""
        for process in self.processes.values():
            for pid in tree(process.pid):
                try:
                    yield pid, stat_of(pid)
                except OSError:
                    pass

    def cpu_parts(self):
        """CPU time, milliseconds, by who used it: each of Kiln's programs for itself, and all the rest: boxes, what runs
        in them, and interpreters that stand by. A process's time goes to whoever waits for it, at its end: nothing is
        counted twice, or lost when it ends."""
        parts = dict.fromkeys((*COMMS, "boxes"), 0.0)
        for _, (comm, fields) in self.below():
            own, waited = (sum(int(fields[i]) for i in pair) * 1000 / CLOCK_TICKS for pair in ((11, 12), (13, 14)))
            parts[comm if comm in COMMS else "boxes"] += own
            parts["boxes"] += waited
        return parts

    def cpu_ms(self):
        return sum(self.cpu_parts().values())

    def resident_mib(self, *kinds):
        """Proportional set size, so that pages shared by several processes count once; or some kinds of it."""
        kib, wanted = 0, kinds or ("Pss:",)
        for pid in self.own():
            try:
                with open(f"/proc/{pid}/smaps_rollup", encoding="utf-8") as f:
                    kib += sum(int(line.split()[1]) for line in f if line.startswith(wanted))
            except OSError:
                pass
        return kib / 1024

    def held(self):
        """What of the machine its processes hold: the same after many tasks as after few."""
        own, descriptors = self.own(), 0
        mounts = set()
        for pid in own:
            try:
                descriptors += len(os.listdir(f"/proc/{pid}/fd"))
                with open(f"/proc/{pid}/mountinfo", encoding="utf-8") as f:
                    mounts |= {text.split()[0] for text in f}
            except OSError:
                continue
        groups = 0
        for where, folders, _ in os.walk("/sys/fs/cgroup"):
            if any(part.startswith("kiln-sandbox.") and int(part.split(".")[2]) in own for part in where.split("/")):
                groups += 1
        # Not pages of files: those of libraries count the less, the more other processes have them too.
        memory = self.resident_mib("Pss_Anon:", "Pss_Shmem:")
        return {"resident_mib": round(memory, 2), "descriptors": descriptors,
                "mounts": len(mounts), "groups": groups}


class Server(Kiln):
    """One kiln serve."""

    options = ()  # of kiln serve, beside those that the benchmark needs

    def __init__(self, build, slots, config="", standby_mib=STANDBY_MIB):
        super().__init__(build)
        self.slots, self.config, self.start_ms = slots, config, None
        self.standby_mib = standby_mib
        self.setup = os.path.join(self.build, "bench", "setup")  # kept from run to run

    def __enter__(self):
        self.ports = [free_port()]
        argv = [self.program("kiln"), "serve", "--listen", f"127.0.0.1:{self.ports[0]}",
                "--data-dir", self.path("data"), "--slots", str(self.slots),
                "--setup-dir", self.setup, f"--standby-bytes={self.standby_mib}MiB",
                f"--fork-bytes={128 if self.standby_mib else 0}MiB"]
        argv += self.options
        if self.config:
            with open(self.path("kiln.yaml"), "w", encoding="utf-8") as f:
                f.write(self.config)
            argv += ["--config", self.path("kiln.yaml")]
        start = time.monotonic()
        self.start("serve", argv)
        self.await_ready("serve", self.ports[0])
        self.start_ms = (time.monotonic() - start) * 1000
        return self

    def await_setup(self, languages, seconds=300):
        """Until what these languages make beforehand is there."""
        end = time.monotonic() + seconds
        while not all(any(name.startswith(language + "-") for name in os.listdir(self.setup))
                      for language in languages):
            if time.monotonic() > end:
                sys.exit(f"nothing was made beforehand for {' and '.join(languages)}")
            time.sleep(0.1)

    def standbys(self):
        """What waits for a task: the runners tell it to the log when they are asked."""
        with open(self.path("serve.log"), "rb") as log:
            log.seek(0, os.SEEK_END)
            runners = [pid for pid, (comm, _) in self.own().items() if comm == "kiln-runner"]
            for pid in runners:
                os.kill(pid, signal.SIGUSR1)
            text, end = b"", time.monotonic() + 10
            while text.count(b'"account"') < len(runners):
                if time.monotonic() > end:
                    sys.exit(f"a runner gives no account of its standbys: {text[-2000:]}")
                time.sleep(0.01)
                text += log.read()
        told = [json.loads(one) for one in text.splitlines() if one.startswith(b"{")]
        return [one for one in told if one.get("msg") == "stands by" and one["state"] == "ready"]

    def metrics(self):
        """By name and labels, as they are written."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.ports[0]}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        return {name: float(value) for name, _, value in
                (text.rpartition(" ") for text in lines if text and text[0] != "#")}


class Stack:
    """PostgreSQL, RabbitMQ and Redis of the benchmark's own, by tools/stack.sh."""

    def __init__(self):
        self.directory = tempfile.mkdtemp(prefix="kiln-bench-stack-")
        os.chmod(self.directory, 0o755)
        self.env = dict(os.environ, KILN_STACK_DIR=self.directory,
                        KILN_STACK_PORT=os.environ.get("KILN_STACK_PORT", "27900"))
        self.store, self.queue, self.cache = None, None, None

    def run(self, *args):
        done = subprocess.run([os.path.join(ROOT, "tools", "stack.sh"), *args], env=self.env,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0:
            sys.exit(f"tools/stack.sh {' '.join(args)} ended with {done.returncode}")
        return done.stdout

    def __enter__(self):
        told = self.run("up")
        urls = {}
        for text in told.splitlines():
            name, equals, value = text.removeprefix("export ").partition("=")
            if equals:
                urls[name] = value.strip("'\"")
        self.store = urls["KILN_TEST_POSTGRES_URL"]
        self.queue = urls["KILN_TEST_RABBITMQ_URL"]
        self.cache = urls["KILN_TEST_REDIS_URL"]
        return self

    def __exit__(self, *_):
        self.run("down")
        shutil.rmtree(self.directory, ignore_errors=True)

    def sql(self, text):
        done = subprocess.run(["psql", "-XqAt", "-v", "ON_ERROR_STOP=1", self.store], input=text,
                              env=CLEAN_ENV, stdout=subprocess.PIPE, text=True, check=True)
        return done.stdout.strip()


class Cluster(Kiln):
    """Kiln as separate processes over a stack: API, schedulers and runners."""

    def __init__(self, build, stack, slots, apis=1, schedulers=1, runners=1, config=""):
        super().__init__(build)
        self.stack, self.slots, self.config = stack, slots, config
        self.apis, self.schedulers, self.runners = apis, schedulers, runners
        self.metrics_ports, self.runner_names = [], []

    def role(self, name, *argv):
        self.start(name, [self.program("kiln"), *argv, "--config", self.path("kiln.yaml")])

    def start_scheduler(self, i):
        self.role(f"scheduler{i}", "scheduler", "--metrics-listen",
                  f"127.0.0.1:{self.metrics_ports[i]}")

    def __enter__(self):
        secret = self.path("secret")
        with open(secret, "w", encoding="utf-8", opener=private) as f:
            f.write(secrets.token_hex(32) + "\n")
        addresses = []
        for i in range(self.runners):
            port, key = free_port(), self.path(f"r{i}.key")
            subprocess.run([self.program("kiln"), "runner-key", f"r{i}", "--secret-file", secret,
                            "--out", key], check=True, env=CLEAN_ENV)
            self.start(f"runner{i}", [
                self.program("kiln-runner"), "--listen", f"127.0.0.1:{port}", "--key-file", key,
                "--name", f"r{i}", "--slots", str(self.slots), "--languages",
                os.path.join(ROOT, "languages"), "--uid-base", str(660000 + 64 * i)])
            addresses.append(f"r{i}@127.0.0.1:{port}")
        with open(self.path("kiln.yaml"), "w", encoding="utf-8", opener=private) as f:
            f.write(f"store: {self.stack.store}\nqueue: {self.stack.queue}\ncache: {self.stack.cache}\n"
                    f"pods: runners:{','.join(addresses)}\ncluster_secret_file: {secret}\n"
                    f"{self.config}")
        subprocess.run([self.program("kiln"), "migrate", "--store", self.stack.store], check=True,
                       env=CLEAN_ENV, stdout=subprocess.DEVNULL)
        for i in range(self.schedulers):
            self.metrics_ports.append(free_port())
            self.start_scheduler(i)
        for i in range(self.apis):
            self.ports.append(free_port())
            self.role(f"api{i}", "api", "--listen", f"127.0.0.1:{self.ports[i]}")
            self.await_ready(f"api{i}", self.ports[i])
        for i in range(self.schedulers):
            self.await_ready(f"scheduler{i}", self.metrics_ports[i])
        return self


def private(path, flags):
    return os.open(path, flags, 0o600)


def request(port, method, path, body=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=90)
    try:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        connection.request(method, path, json.dumps(body) if body is not None else None, headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read() or b"null")
    finally:
        connection.close()
