# SPDX-License-Identifier: Apache-2.0
"""Starts the API alone (api_harness.c) and talks to it, over sockets as raw as a test needs."""

import http.client
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.abspath(os.environ.get("KILN_BUILD", os.path.join(ROOT, "build-asan")))
PATIENCE = 60
GOOD = {"language": "python", "code": "print(1)"}


def raise_open_files():
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return f"<{self.status} {self.body[:300]!r}>"


class Api:
    """One harness. close() tells whether it ended well: no leak, no handle left open."""

    def __init__(self, *args):
        self.directory = tempfile.mkdtemp(prefix="kiln-api-")
        program = os.path.join(BUILD, "tests", "integration", "api-harness")
        self.log = open(os.path.join(self.directory, "log"), "w+b")
        self.process = subprocess.Popen(
            [program, "--data", self.directory, "--languages", os.path.join(ROOT, "languages"), *args],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self.log)
        line = self.process.stdout.readline().decode()
        assert line.startswith("ready "), line + self.log_text()
        self.port = int(line.rsplit(":", 1)[1])

    def log_text(self):
        # Not by reading: the position in the file is also the server's, which would write there.
        return os.pread(self.log.fileno(), os.fstat(self.log.fileno()).st_size, 0).decode(errors="replace")

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)

    def close(self):
        if self.process.poll() is None:
            self.terminate()
        try:
            code = self.process.wait(PATIENCE)
        finally:
            self.process.kill()
            self.process.stdout.close()
        text = self.log_text()
        self.log.close()
        shutil.rmtree(self.directory, ignore_errors=True)
        assert code == 0, (code, text)
        assert "ERROR: " not in text and "runtime error" not in text, text

    def request(self, method, path, body=None, headers=None, timeout=PATIENCE):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        headers = dict(headers or {})
        if isinstance(body, dict):
            body = json.dumps(body)
        if body is not None:
            headers.setdefault("Content-Type", "application/json")
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def get(self, path, **kw):
        return self.request("GET", path, **kw)

    def submit(self, path="/submit", headers=None, **fields):
        return self.request("POST", path, GOOD | fields, headers)

    def connect(self, timeout=PATIENCE):
        return socket.create_connection(("127.0.0.1", self.port), timeout)

    def raw(self, data, shut=False, timeout=PATIENCE):
        """Sends the bytes, and returns all that comes until the server closes."""
        with self.connect(timeout) as s:
            try:
                s.sendall(data)
                if shut:
                    s.shutdown(socket.SHUT_WR)
            except OSError:
                pass
            return read_all(s)

    def alive(self):
        return self.process.poll() is None and self.get("/healthz").status == 200


def read_all(s):
    got = b""
    try:
        while chunk := s.recv(65536):
            got += chunk
    except ConnectionResetError:
        pass
    return got


def statuses(data):
    """Of all answers in what a connection gave; their bodies are skipped by length."""
    found = []
    while data:
        assert data.startswith(b"HTTP/1.1 "), data[:100]
        head, _, rest = data.partition(b"\r\n\r\n")
        if head.split()[1] == b"100":
            data = rest
            continue
        found.append(int(head.split()[1]))
        length = next((int(line.split(b":")[1]) for line in head.split(b"\r\n")
                       if line.lower().startswith(b"content-length:")), 0)
        assert len(rest) >= length, (head, rest)
        data = rest[length:]
    return found


def head(method="POST", path="/submit", **headers):
    lines = {"Host": "127.0.0.1", "Content-Type": "application/json"} if method == "POST" else \
        {"Host": "127.0.0.1"}
    lines |= {k.replace("_", "-"): v for k, v in headers.items()}
    text = "".join(f"{k}: {v}\r\n" for k, v in lines.items() if v is not None)
    return f"{method} {path} HTTP/1.1\r\n{text}\r\n".encode()
