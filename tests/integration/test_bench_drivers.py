# SPDX-License-Identifier: Apache-2.0
"""Other systems' wire formats, as bench/drivers has them, against servers that take exactly what is
documented of these and run it; and what bench-load makes of answers in all shapes."""

import functools
import http.server
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.abspath(os.environ.get("KILN_BUILD", os.path.join(ROOT, "build-asan")))
LOAD = os.path.join(BUILD, "bench", "bench-load")


@functools.cache
def run_once(argv, files):
    """What a program prints is the same each time, and the machine is to be left to the load."""
    with tempfile.TemporaryDirectory() as directory:
        for name, text in files:
            with open(os.path.join(directory, name), "w", encoding="utf-8") as f:
                f.write(text)
        return subprocess.run(argv, cwd=directory, stdout=subprocess.PIPE, check=False, text=True).stdout


def python(argv, files):
    return run_once(tuple(argv), tuple(files.items()))


def piston(path, body):
    assert path == "/api/v2/execute" and set(body) <= {"language", "version", "files", "stdin", "args"}
    assert body["language"] == "python" and body["version"] == "*"
    name, text = body["files"][0]["name"], body["files"][0]["content"]
    out = python(["/usr/bin/python3", name], {name: text})
    stage = {"signal": None, "stdout": out, "stderr": "", "code": 0, "output": out}
    return 200, {"run": stage, "language": "python", "version": "3.10.0"}


def judge0(path, body):
    assert path == "/submissions?base64_encoded=false&wait=true" and body["language_id"] == 71
    assert set(body) == {"language_id", "source_code"}
    out = python(["/usr/bin/python3", "script.py"], {"script.py": body["source_code"]})
    return 201, {"stdout": out, "time": "0.02", "memory": 3000, "stderr": None, "token": "t",
                 "compile_output": None, "message": None, "status": {"id": 3, "description": "Accepted"}}


def go_judge(path, body):
    (cmd,) = body["cmd"]
    assert path == "/run" and cmd["cpuLimit"] > 10**9 and cmd["memoryLimit"] > 2**20
    assert [f.get("name") for f in cmd["files"]] == [None, "stdout", "stderr"]
    out = python(cmd["args"], {name: given["content"] for name, given in cmd["copyIn"].items()})
    return 200, [{"status": "Accepted", "exitStatus": 0, "time": 1, "memory": 1, "runTime": 1,
                  "files": {"stdout": out, "stderr": ""}}]


PEERS = {"piston": piston, "judge0": judge0, "go-judge": go_judge}


class Peer(http.server.ThreadingHTTPServer):
    """Answers by a function of path and body; in chunks of a few bytes where it says so."""
    daemon_threads = True
    request_queue_size = 128  # bench-load connects with 64 at once

    def __init__(self, answer, chunk=0):
        self.answer, self.chunk, self.failed = answer, chunk, []
        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request, client_address):
        self.failed.append(sys.exc_info()[1])


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        assert self.headers["Content-Type"] == "application/json"
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status, told = self.server.answer(self.path, body)
        data, size = json.dumps(told).encode(), self.server.chunk
        self.send_response(status)
        if not size:
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
            return
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for i in range(0, len(data), size):
            part = data[i:i + size]
            self.wfile.write(b"%X\r\n%s\r\n" % (len(part), part))
        self.wfile.write(b"0\r\n\r\n")


def run(name, port, directory, *more):
    out = os.path.join(directory, "report.json")
    done = subprocess.run(
        ["/usr/bin/python3", os.path.join(ROOT, "bench", "run.py"), "--build", BUILD, "--quick", "--driver", name,
         "--url", f"http://127.0.0.1:{port}", "--report", out, *more],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=120)
    if not os.path.exists(out):
        return done, None
    with open(out, encoding="utf-8") as f:
        return done, json.load(f)


@pytest.mark.parametrize("name, chunk", [*((name, 0) for name in PEERS), ("judge0", 7)])
def test_driver_speaks_as_the_peer_documents(name, chunk, tmp_path):
    peer = Peer(PEERS[name], chunk)
    done, report = run(name, peer.server_address[1], tmp_path, "--only", "python")
    assert done.returncode == 0 and not peer.failed, (done.stdout, peer.failed)
    (program,) = report["driver"]["programs"]
    loads = [*program["closed"], program["paced"]]
    assert [one["clients"] for one in program["closed"]] == [1, 4, 16, 64]
    assert all(one["errors"] == 0 and one["n"] > 0 for one in loads), loads


def test_wrong_output_is_no_result(tmp_path):
    peer = Peer(lambda path, body: (200, {"run": {"stdout": "hell\n"}}))
    done, report = run("piston", peer.server_address[1], tmp_path, "--only", "python")
    assert done.returncode != 0 and list(report["driver"]["failed"]) == ["python"] and not report["driver"]["programs"]
    assert "there is no hello" in done.stdout and "hell" in done.stdout


def test_server_that_says_no_is_told(tmp_path):
    peer = Peer(lambda path, body: (429, {"message": "slow down"}))
    done, _ = run("piston", peer.server_address[1], tmp_path, "--only", "python")
    assert done.returncode != 0 and "answered 429" in done.stdout and "slow down" in done.stdout


def test_driver_that_is_none_is_refused(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text('{"request": {"path": "/", "body": {}}, "output": "/x", "programs": {}, "requset": 1}')
    done, _ = run(str(path), 1, tmp_path)
    assert done.returncode != 0 and "requset is not known" in done.stdout
    done, _ = run("nobody", 1, tmp_path)
    assert done.returncode != 0 and "there is no driver nobody" in done.stdout and "kiln" in done.stdout


# ---- bench-load ----

def load(port, directory, *more, body="{}"):
    path = os.path.join(directory, "body.json")
    with open(path, "w", encoding="utf-8") as f:
        f.write(body)
    done = subprocess.run([LOAD, "--port", str(port), "--body", path, "--path", "/", "--requests", "20",
                           "--clients", "2", *more], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          check=False, timeout=60)
    return done, json.loads(done.stdout) if done.returncode == 0 else None


def test_output_must_be_the_very_text_where_the_pointer_leads(tmp_path):
    peer = Peer(lambda path, body: (200, {"echo": "hello\n", "all": [{"out": "hello\nhello\n"}]}))
    port = peer.server_address[1]
    for pointer, good in (("/echo", True), ("/all/0/out", False), ("/all/1/out", False), ("/all/x", False),
                          ("/none", False), ("", False)):
        _, told = load(port, tmp_path, "--output", pointer, "--expect", "hello\n")
        assert (told["n"], told["errors"]) == ((20, 0) if good else (0, 20)), pointer


def test_each_request_has_another_number(tmp_path):
    seen, lock = [], threading.Lock()

    def answer(_, body):
        with lock:
            seen.append(body["code"])
        return 200, {}
    peer = Peer(answer)
    body = json.dumps({"code": "// " + "@" * 20 + "\nx"})
    for _ in range(2):  # nor does a second run have one of the first
        _, told = load(peer.server_address[1], tmp_path, "--unique", "@" * 20, body=body)
        assert told["n"] == 20
    assert len(set(seen)) == 40 and all(text[:3] == "// " and text[3:23].isdigit() and text[23:] == "\nx" for text in seen)
    done, _ = load(peer.server_address[1], tmp_path, "--unique", "#" * 20, body=body)
    assert done.returncode != 0 and "number the requests" in done.stderr


def test_answers_with_a_text_are_told_apart(tmp_path):
    count = iter(range(1000))
    peer = Peer(lambda path, body: (200, {"who": "warm" if next(count) % 4 == 0 else "cold"}))
    _, told = load(peer.server_address[1], tmp_path, "--apart", "warm")
    assert (told["n"], told["apart"]["n"]) == (20, 5)


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\n\r\n{}", b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n{}",
                                  b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
                                  b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
                                  b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffffff\r\n"])
def test_answer_that_is_none_ends_it(head, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        def serve():
            held = []
            while True:
                try:
                    one, _ = listener.accept()
                except OSError:
                    return
                held.append(one)
                one.recv(65536)
                one.sendall(head)
        threading.Thread(target=serve, daemon=True).start()
        done, _ = load(listener.getsockname()[1], tmp_path, "--clients", "1")
    assert done.returncode == 1 and "read an answer" in done.stderr, done
