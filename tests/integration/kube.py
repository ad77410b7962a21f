# SPDX-License-Identifier: Apache-2.0
"""Starts the Kubernetes parts alone (kube_harness.c) and talks to them."""

import collections
import json
import os
import queue
import subprocess
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.abspath(os.environ.get("KILN_BUILD", os.path.join(ROOT, "build-asan")))


class Harness:
    """close() tells whether it ended well: no leak, no handle left open."""

    def __init__(self, *args, env=None):
        program = os.path.join(BUILD, "tests", "integration", "kube-harness")
        self.process = subprocess.Popen([program, *args], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, text=True,
                                        env=os.environ | (env or {}))
        self.queue = queue.Queue()
        self.events = []       # all so far
        self.log = collections.deque(maxlen=2000)
        self.readers = [threading.Thread(target=self.read, daemon=True),
                        threading.Thread(target=self.read_log, daemon=True)]
        for r in self.readers:
            r.start()
        self.wait("ready")

    def read(self):
        for line in self.process.stdout:
            event = json.loads(line)
            event["at"] = time.monotonic()
            self.events.append(event)
            self.queue.put(event)
        self.queue.put(None)

    def read_log(self):
        for line in self.process.stderr:
            self.log.append(line)

    def log_text(self):
        return "".join(self.log)

    def wait_log(self, text, seconds=15):
        """What it did may be seen before the line that tells of it was read."""
        end = time.monotonic() + seconds
        while text not in self.log_text():
            assert time.monotonic() < end, f"no {text} in the log:\n{self.log_text()[-4000:]}"
            time.sleep(0.02)

    def say(self, *words):
        self.process.stdin.write(" ".join(str(w) for w in words) + "\n")
        self.process.stdin.flush()

    def wait(self, event, seconds=15, **fields):
        """The next such event; those that come before it are skipped."""
        end = time.monotonic() + seconds
        while True:
            try:
                got = self.queue.get(timeout=max(0, end - time.monotonic()))
            except queue.Empty:
                got = None
            if not got:
                self.readers[1].join(2)  # its last words may not be read yet
            assert got, f"no {event} {fields}: {self.events[-10:]}\n{self.log_text()[-4000:]}"
            if got["event"] == event and all(got.get(k) == v for k, v in fields.items()):
                return got

    def seen(self, event, **fields):
        return [e for e in list(self.events) if e["event"] == event and
                all(e.get(k) == v for k, v in fields.items())]

    def kill(self):
        self.process.kill()
        self.process.wait()

    def close(self):
        if self.process.poll() is None:
            self.process.stdin.close()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for r in self.readers:
            r.join(5)
        return self.process.returncode
