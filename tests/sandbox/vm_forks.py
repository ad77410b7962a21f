#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Tasks that are forked of interpreters, in the virtual machine of vm.py: a whole server in a group of cgroup
version 2 with all its controllers, as root or as an ordinary user. Output is TAP.

    vm_forks.py --kiln PROGRAM --languages FOLDER --as USER
"""

import argparse
import json
import os
import re
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

PORT = 18080
START_S = 120  # an emulated machine is slow
MIB = 1 << 20
HELLO = {"python": "print('hello')", "ruby": "puts 'hello'"}
HOARD = {"python": "x = []\nwhile True: x.append(bytearray(b'x') * (1 << 20))",
         "ruby": "x = []\nloop { x << 'x' * (1 << 20) }"}
FORKS = {"python": "import os, time\ntry:\n while True:\n  if os.fork() == 0: time.sleep(60)\n"
                   "except OSError: print('no more')",
         "ruby": "begin; loop { Thread.new { sleep } }; rescue ThreadError; puts 'no more'; end"}


def nobody():
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)


class Server:
    def __init__(self, options):
        self.data = tempfile.mkdtemp(prefix="forks-")
        os.chmod(self.data, 0o777)
        self.process = subprocess.Popen(
            [options.kiln, "serve", "--listen", f"127.0.0.1:{PORT}", "--data-dir", os.path.join(self.data, "data"),
             "--setup-dir", os.path.join(self.data, "setup"),
             "--languages", options.languages, "--sandbox.limits=cgroup2"],
            stdin=subprocess.DEVNULL, preexec_fn=nobody if options.user == "nobody" else None)

    def wait_ready(self):
        end = time.monotonic() + START_S
        while self.get("/readyz") != 200:
            assert self.process.poll() is None, "the server ended"
            assert time.monotonic() < end, "the server does not get ready"
            time.sleep(0.2)

    @staticmethod
    def get(path):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{PORT}{path}", timeout=10) as answer:
                return answer.status
        except OSError:
            return None

    @staticmethod
    def run(language, code, **limits):
        body = json.dumps({"language": language, "code": code, "limits": {"wall_ms": 60000, "cpu_ms": 60000} | limits})
        request = urllib.request.Request(f"http://127.0.0.1:{PORT}/submit?wait=60", body.encode(),
                                         {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)

    def forked(self, language, code, **limits):
        end = time.monotonic() + START_S
        while True:
            task = self.run(language, code, **limits)
            if (task["isolation"] or {}).get("standby") == "fork":
                return task
            assert time.monotonic() < end, task
            time.sleep(0.5)

    def close(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


# ---- what must hold ----

def hello(server, language):
    task = server.forked(language, HELLO[language])
    assert task["stdout"] == "hello\n" and task["isolation"]["limits"] == "cgroup2", task
    assert 0 < task["usage"]["memory_bytes"] < 64 * MIB, task


def memory(server, language):
    task = server.forked(language, HOARD[language], memory_bytes=64 * MIB)
    assert task["outcome"] == "memory_limit", task
    assert task["usage"]["memory_bytes"] <= 65 * MIB, task


def processes(server, language):
    task = server.forked(language, FORKS[language], processes=16)
    assert task["stdout"].strip() == "no more", task


def groups():
    """But the one that the server's own processes were moved to."""
    return sorted(d for d, _, _ in os.walk("/sys/fs/cgroup") if "kiln" in os.path.basename(d) and
                  not d.endswith("/kiln-main"))


def tree():
    found = []
    for where, _, _ in os.walk("/sys/fs/cgroup"):
        with open(os.path.join(where, "cgroup.procs"), encoding="ascii") as f:
            found.append((where, f.read().split()))
    return found


def others():
    """But those that nobody has waited for: the machine's first process does not."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/stat", encoding="ascii") as f:
                comm, state = re.match(r"\d+ \((.*)\) (\w)", f.read()).groups()
        except OSError:
            continue
        if comm.startswith(("kiln", "ruby")) and state != "Z":
            found.append((pid, comm, state))
    return found


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--kiln", required=True)
    p.add_argument("--languages", required=True)
    p.add_argument("--as", dest="user", required=True)
    options = p.parse_args()
    before = groups()
    server = Server(options)
    number = 0

    def told(name, check, *args):
        nonlocal number
        number += 1
        try:
            check(*args)
            print(f"ok {number} - {name}", flush=True)
        except (AssertionError, OSError) as e:
            why = e.read() if isinstance(e, urllib.error.HTTPError) else e
            print(f"not ok {number} - {name}\n# {why!r}"[:2000], flush=True)

    told("the server gets ready", server.wait_ready)
    for language in HELLO:
        for check in (hello, memory, processes, hello):
            told(f"forks of {language}: {check.__name__}", check, server, language)

    def nothing_is_left():
        assert server.close() == 0
        end = time.monotonic() + 20  # interpreters end as they hear of it
        while groups() != before or others():
            assert time.monotonic() < end, (groups(), others(), tree())
            time.sleep(0.1)
    told("nothing is left of forks", nothing_is_left)


main()
