# SPDX-License-Identifier: Apache-2.0
"""Kiln as separate processes over the servers of tools/stack.sh: API replicas, schedulers, runners
that listen. Each cluster has a schema, queues and a secret of its own."""

import os
import secrets
import signal
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "e2e"))

from harness import (Client, PATIENCE, SANITIZER_MARKS, clean_env, free_port, program,  # noqa: E402
                     wait_until)

URLS = ("KILN_TEST_POSTGRES_URL", "KILN_TEST_RABBITMQ_URL", "KILN_TEST_REDIS_URL")


class Process:
    """One process of a cluster, which can be ended, killed and started again."""

    def __init__(self, cluster, name, argv, port=None):
        self.cluster, self.name, self.argv, self.port = cluster, name, argv, port
        self.env = cluster.env.get(name, {})
        self.log_path = os.path.join(cluster.directory, f"{name}.log")
        self.process = None

    def start(self):
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log, env=clean_env(self.env), cwd="/",
                                            start_new_session=True)
        return self

    def log_text(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as f:
            return f.read()

    def wait_ready(self):
        def ready():
            assert self.process.poll() is None, self.log_text()
            try:
                return self.get("/readyz").status == 200
            except OSError:
                return False
        wait_until(ready, what=f"{self.name} ready")
        return self

    def get(self, path):
        return Client(self.port).get(path, timeout=5)

    def stop(self, seconds=None):
        """SIGTERM, and an orderly end."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(seconds or PATIENCE + 60)
        assert code == 0, f"{self.name} ended with {code}:\n{self.log_text()}"
        self.process = None

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process = None

    def close(self):
        if self.process:
            self.process.kill()
            self.process.wait()
        found = [mark for mark in SANITIZER_MARKS if mark in self.log_text()]
        assert not found, f"{self.name}: {found}\n{self.log_text()}"


class Cluster:
    def __init__(self, directory, apis=2, schedulers=2, runners=2, slots=2, config=(), env=None):
        self.directory = str(directory)
        self.env = env or {}  # more of it, by the name of the process
        self.name = "kiln_test_" + secrets.token_hex(6)
        self.config = list(config)
        self.processes = []
        self.secret_file = self.write_secret("secret")
        self.postgres, rabbitmq, redis = (os.environ[u] for u in URLS)
        self.sql(f"CREATE SCHEMA {self.name}")
        joint = "&" if "?" in self.postgres else "?"
        self.store = f"{self.postgres}{joint}options=-csearch_path%3D{self.name}"
        self.shared = [f"--store={self.store}", f"--queue={rabbitmq}?prefix={self.name}",
                       f"--cache={redis.rpartition('/')[0]}/{1 + secrets.randbelow(15)}"]
        self.kiln("migrate", f"--store={self.store}")
        self.runners = [self.runner(f"r{i}", slots) for i in range(runners)]
        self.schedulers = [self.scheduler(f"scheduler{i}") for i in range(schedulers)]
        self.apis = [self.api(f"api{i}") for i in range(apis)]

    def sql(self, text):
        subprocess.run(["psql", "-qX", self.postgres, "-c", "SET client_min_messages = error",
                        "-c", text], check=True, timeout=60)

    def kiln(self, *args, check=True):
        return subprocess.run([program("kiln"), *args], env=clean_env(), check=check, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=PATIENCE)

    def write_secret(self, name, text=None):
        path = os.path.join(self.directory, name)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="ascii") as f:
            f.write(text or secrets.token_hex(32) + "\n")
        return path

    def add(self, name, argv, port=None):
        process = Process(self, name, argv, port)
        self.processes.append(process)
        return process.start()

    def runner(self, name, slots=2, secret_file=None):
        key, port = os.path.join(self.directory, f"{name}.key"), free_port()
        self.kiln("runner-key", name, "--secret-file", secret_file or self.secret_file, "--out", key)
        number = sum("kiln-runner" in p.argv[0] for p in self.processes)
        return self.add(name, [program("kiln-runner"), "--listen", f"127.0.0.1:{port}",
                               "--key-file", key, "--slots", str(slots),
                               "--uid-base", str(700000 + number * 64), "--languages",
                               os.path.join(ROOT, "languages")], port)

    def address(self, runner):
        return f"{runner.name}@127.0.0.1:{runner.port}"

    def scheduler(self, name, pods=None, secret_file=None):
        port = free_port()
        pods = pods or "runners:" + ",".join(self.address(r) for r in self.runners)
        return self.add(name, [program("kiln"), "scheduler", *self.shared, f"--pods={pods}",
                               f"--cluster-secret-file={secret_file or self.secret_file}",
                               f"--metrics-listen=127.0.0.1:{port}", *self.config], port)

    def api(self, name):
        port = free_port()
        return self.add(name, [program("kiln"), "api", *self.shared, f"--listen=127.0.0.1:{port}",
                               *self.config], port)

    def wait_ready(self):
        for process in self.schedulers + self.apis:
            process.wait_ready()
        return self

    def client(self, i=0):
        return Client(self.apis[i].port)

    def close(self):
        try:
            for process in self.processes:
                process.close()
        finally:
            for process in self.processes:
                if process.process:
                    process.process.kill()
                    process.process.wait()
            self.sql(f"DROP SCHEMA {self.name} CASCADE")
            self.drop_queues()

    def drop_queues(self):
        """A broker that has many hundreds of them, a process each, answers late."""
        ours = f'binary:match(element(4, amqqueue:get_name(Q)), <<"{self.name}.">>) =/= nomatch'
        subprocess.run([os.path.join(ROOT, "tools", "stack.sh"), "rabbitmqctl", "eval",
                        '[rabbit_amqqueue:delete(Q, false, false, <<"tests">>)'
                        f" || Q <- rabbit_amqqueue:list(), {ours}]."],
                       check=True, timeout=120, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)
