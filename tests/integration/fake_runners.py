# SPDX-License-Identifier: Apache-2.0
"""Makes the kubelet of fake_kube.py start real runners: each pod is a kiln-runner on an address of its
own, ends with it, and it with the pod."""

import os
import subprocess
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class Runners:
    """program(name) is the path of a program, env what they get, key(pool) the path of its key."""

    def __init__(self, kube, directory, program, env, key, slots=2, uid_base=710000):
        self.kube, self.directory, self.program, self.env, self.key = kube, directory, program, env, key
        self.slots, self.uid_base = slots, uid_base
        self.languages = os.path.join(ROOT, "languages")
        self.prefix, self.more = lambda name: [], []  # what goes before and after
        self.runners, self.ended, self.lock = {}, set(), threading.Lock()
        kube.on_run, kube.on_end = self.run, self.end
        threading.Thread(target=self.reap, daemon=True).start()

    def key_of(self, name, pool):
        """What an init container leaves for the runner where pods have keys of their own."""
        if self.kube.objects["podtemplates"][pool]["metadata"]["annotations"].get("kiln/key") != "pod":
            return self.key(pool)
        out = os.path.join(self.directory, name + ".pod-key")
        subprocess.run([self.program("kiln-runner"), "derive-key", "--key-file", self.key(pool),
                        "--name", name, "--out", out], check=True)
        return out

    def run(self, name, pod, ip):
        key = self.key_of(name, pod["metadata"]["labels"]["kiln/pool"])
        argv = [*self.prefix(name), self.program("kiln-runner"),
                "--listen", f"{ip}:{self.kube.pod_port}", "--key-file",
                key, "--slots", str(self.slots),
                "--uid-base", str(self.uid_base + len(self.runners) * 64), "--languages",
                self.languages, *self.more]
        with open(os.path.join(self.directory, name + ".log"), "wb") as log:
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                       env=self.env, cwd="/")
        with self.lock:
            self.runners[pod["metadata"]["uid"]] = (name, process)

    def end(self, uid):
        """The pod is to be gone: what is left of its program goes."""
        with self.lock:
            found = self.runners.get(uid)
        if found and found[1].poll() is None:
            found[1].kill()

    def reap(self):
        """A program that ends ends its pod."""
        while not self.kube.stopping:
            with self.lock:
                over = [(uid, name, p.returncode) for uid, (name, p) in self.runners.items()
                        if p.poll() is not None and uid not in self.ended]
                self.ended |= {uid for uid, _, _ in over}
            for _, name, code in over:
                self.kube.end(name, "Succeeded" if code == 0 else "Failed", code,
                              "Completed" if code == 0 else "Error")
            time.sleep(0.02)

    def running(self):
        with self.lock:
            return [name for name, p in self.runners.values() if p.poll() is None]

    def kill(self, name):
        with self.lock:
            process = next(p for n, p in self.runners.values() if n == name)
        process.kill()

    def close(self):
        self.kube.close()
        with self.lock:
            left = [p for _, p in self.runners.values()]
        for p in left:
            # What stands before a runner may not pass the signal on; what it made ends with it.
            p.terminate() if p.args[0] == self.program("kiln-runner") else p.kill()
        for p in left:
            try:
                p.wait(10)
            except subprocess.TimeoutExpired:
                p.kill()
                p.wait()
