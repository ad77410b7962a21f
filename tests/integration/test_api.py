# SPDX-License-Identifier: Apache-2.0
"""The HTTP API over a store, without runners: clients that are slow, rude, many, or other tenants.
Whatever they do, each gets the status that the contract names, and the server goes on."""

import contextlib
import hashlib
import json
import os
import select
import socket
import sqlite3
import threading
import time

import pytest

import api
from api import GOOD, head, read_all, statuses

BODY = json.dumps(GOOD).encode()
UNKNOWN = "01900000-0000-7000-8000-000000000000"


@pytest.fixture(scope="module", autouse=True)
def many_files():
    api.raise_open_files()


@pytest.fixture(scope="module")
def echo():
    """A server whose tasks are finished at once with their stdin as stdout."""
    one = api.Api("--echo", "--not-installed", "ruby")
    yield one
    one.close()


@pytest.fixture
def start():
    started = []

    def make(*args):
        started.append(api.Api(*args))
        return started[-1]
    yield make
    for one in started:
        one.close()


def problem(answer, status, code=None):
    assert answer.status == status, answer
    assert answer.headers["Content-Type"] == "application/problem+json"
    body = answer.json
    assert body["status"] == status and body["title"] and body["detail"]
    assert body["type"] == "/problems/" + body["code"]
    assert code in (None, body["code"]), body
    return body


# ---- framing: what two readers could understand differently ----

def smuggle(text):
    return text + b"0\r\n\r\nGET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


BAD_FRAMES = {
    "no Host": b"GET /healthz HTTP/1.1\r\n\r\n",
    "two Hosts": b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: localhost\r\n\r\n",
    "length and chunked": smuggle(head(Content_Length="5", Transfer_Encoding="chunked")),
    "chunked and length": smuggle(head(Transfer_Encoding="chunked", Content_Length="5")),
    "two lengths": head(Content_Length="5").replace(b"\r\n\r\n", b"\r\nContent-Length: 6\r\n\r\n"),
    "equal lengths": head(Content_Length="5").replace(b"\r\n\r\n", b"\r\ncontent-length: 5\r\n\r\n"),
    "negative length": head(Content_Length="-1"),
    "signed length": head(Content_Length="+5"),
    "hexadecimal length": head(Content_Length="0x5"),
    "list of lengths": head(Content_Length="5, 5"),
    "other encoding": head(Transfer_Encoding="gzip, chunked"),
    "identity": head(Transfer_Encoding="identity"),
    "chunked in HTTP/1.0": head(Transfer_Encoding="chunked").replace(b"HTTP/1.1", b"HTTP/1.0"),
    "blank before the colon": head(Content_Length=None).replace(b"Host:", b"Host :"),
    "body of GET": head("GET", "/healthz", Content_Length="5", Connection="close") + b"hello",
}


@pytest.mark.parametrize("what", BAD_FRAMES)
def test_bad_framing_is_refused_and_nothing_behind_it_is_read(echo, what):
    with echo.connect(10) as s:
        s.sendall(BAD_FRAMES[what])
        s.shutdown(socket.SHUT_WR)
        got = read_all(s)
    # Some never get past libmicrohttpd, whose own refusals have their head twice.
    assert got.startswith(b"HTTP/1.1 400") and b" 200 OK" not in got, got
    assert echo.alive()


@pytest.mark.parametrize("path", ["/healthz%00x", "/healthz%00", "/%00healthz", f"/result/{UNKNOWN}%00x",
                                  "/healthz%00?a=1", "http://127.0.0.1/healthz%00x"])
def test_nul_in_a_path_is_refused(echo, path):
    got = echo.raw(head("GET", path, Connection="close"))
    assert statuses(got) == [400] and b"NUL" in got, got


def test_what_only_looks_like_a_nul_is_a_path(echo):
    got = echo.raw(head("GET", "/healthz%2500", Connection="close"))
    assert statuses(got) == [404], got
    got = echo.raw(head("GET", "/healthz?a=%00", Connection="close"))
    assert statuses(got) == [400], got


@pytest.mark.parametrize("target, status", [
    ("http://127.0.0.1:8080/healthz", 200), ("HTTP://LOCALHOST/healthz", 200),
    ("http://[::1]:80/healthz", 200), ("https://localhost/healthz", 200), ("http://localhost", 200),
    ("http://localhost/v1/tasks?limit=1", 200), ("http://localhost?x=1", 400),
    ("http://localhost/tasks?limit=0", 400), ("http://localhost/nothing", 404),
    ("http://evil.example/healthz", 403), ("http://evil.example", 403),
    ("http:///healthz", 400), ("http://:80/healthz", 400), ("http://me@127.0.0.1/healthz", 400),
    ("http://127.0.0.1%2fhealthz", 400), ("http://127.0.0.1%40evil.example/healthz", 400),
    ("http://" + "a" * 300 + "/healthz", 400), ("ftp://127.0.0.1/healthz", 404),
])
def test_absolute_form_of_targets(echo, target, status):
    got = echo.raw(head("GET", target, Connection="close"))
    assert statuses(got) == [status], got


def test_host_of_the_target_counts_in_place_of_host(echo):
    def ask(target, **headers):
        return statuses(echo.raw(head("GET", target, Connection="close", **headers)))
    assert ask("http://127.0.0.1/healthz", Host="evil.example") == [200]
    assert ask("http://evil.example/healthz", Host="127.0.0.1") == [403]
    assert ask("http://localhost:7/healthz", Origin="http://localhost:7") == [200]
    assert ask("http://localhost:7/healthz", Host="localhost:8", Origin="http://localhost:8") == [403]
    # The next request of the connection has its own.
    got = echo.raw(head("GET", "http://127.0.0.1/healthz", Host="evil.example") +
                   head("GET", "/healthz", Host="evil.example", Connection="close"))
    assert statuses(got) == [200, 403], got
    assert echo.raw(b"GET http://127.0.0.1/healthz HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 400")


def test_http_1_0_needs_no_host(echo):
    got = echo.raw(b"GET /languages HTTP/1.0\r\n\r\n")
    # A server on loopback answers only to its own names, also where none is given.
    assert statuses(got) in ([200], [403]), got


def test_pipelined_requests_are_answered_in_order(echo):
    post = head(Content_Length=str(len(BODY))) + BODY
    wait = post.replace(b"/submit", b"/submit?wait=10")
    last = head("GET", "/nothing", Connection="close")
    got = echo.raw(head("GET", "/healthz") + wait + head("GET", f"/result/{UNKNOWN}") + post + last)
    assert statuses(got) == [200, 200, 404, 201, 404], got


def test_connection_is_kept_after_a_small_refusal(echo):
    bad = head(Content_Length=str(len(BODY)), Content_Type="text/plain") + BODY
    got = echo.raw(bad + head("GET", "/healthz", Connection="close"))
    assert statuses(got) == [415, 200], got


# ---- bodies ----

def test_announced_body_over_the_ceiling_is_refused_unread(echo):
    start = time.monotonic()
    got = echo.raw(head(Content_Length=str(1 << 40)) + b"{")
    assert statuses(got) == [413] and b'"ceiling":8388608' in got, got
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("size", [(8 << 20) + 1, 9 << 20, 30 << 20])
def test_body_over_the_ceiling_gets_its_answer_although_it_is_sent_whole(echo, size):
    got = echo.raw(head(Content_Length=str(size)) + b" " * size)
    assert statuses(got) == [413], got[:300]


def test_body_at_the_ceiling_is_taken(echo):
    body = json.dumps(GOOD | {"stdin": ""}).encode()
    body = body.replace(b'"stdin": ""', b'"stdin": "' + b"x" * ((8 << 20) - len(body)) + b'"')
    assert len(body) == 8 << 20
    answer = echo.request("POST", "/submit", body)
    assert answer.status == 201, answer


def test_expect_100_continue_is_answered_before_the_body(echo):
    with echo.connect() as s:
        s.sendall(head(Content_Length=str(len(BODY)), Expect="100-continue", Connection="close"))
        assert s.recv(1000).startswith(b"HTTP/1.1 100")
        s.sendall(BODY)
        assert statuses(read_all(s)) == [201]
    got = echo.raw(head(Content_Length=str(9 << 20), Expect="100-continue"))
    assert statuses(got) == [413] and b" 100 " not in got, got
    got = echo.raw(head(Content_Length="10", Expect="100-continue", Content_Type="text/plain"))
    assert statuses(got) == [415] and b" 100 " not in got, got


def chunked(pieces):
    return b"".join(f"{len(p):x}\r\n".encode() + p + b"\r\n" for p in pieces) + b"0\r\n\r\n"


def test_chunked_body(echo):
    start = head(Transfer_Encoding="chunked", Connection="close")
    assert statuses(echo.raw(start + chunked([BODY[:7], BODY[7:]]))) == [201]
    assert statuses(echo.raw(start + chunked([b" " * 65536] * 160))) == [413]
    # Far beyond the ceiling the connection is cut.
    got = echo.raw(start + chunked([b" " * (1 << 20)] * 40))
    assert got == b"" or statuses(got) == [413]


def test_all_bodies_together_are_bounded(start):
    server = start("--held-max", str(4 << 20))
    big = head(Content_Length=str(3 << 20)) + b" " * (2 << 20)
    with server.connect() as one, server.connect() as two:
        one.sendall(big)
        time.sleep(0.5)
        two.sendall(big)
        time.sleep(0.5)
        answer = server.submit()
        assert answer.status in (201, 503), answer
        two.sendall(b" " * (1 << 20))
        got = two.recv(65536)
        assert got.startswith(b"HTTP/1.1 503") and b"Retry-After:" in got, got
    time.sleep(0.5)
    assert server.submit().status == 201


# ---- slow and silent clients ----

def test_slow_senders_do_not_hold_up_others_and_are_cut_in_the_end(start):
    """Slow loris: a byte now and then would keep a connection for ever."""
    server = start()
    slow = []
    for i in range(100):
        s = server.connect()
        s.sendall(b"GET /healthz HTTP/1.1\r\nX: " if i % 2 else head(Content_Length="1000"))
        slow.append(s)
    # libmicrohttpd 0.9.75 has no memory left for an answer to so many parameters: cut as well.
    s = server.connect()
    s.sendall(b"GET /tasks?" + b"a=1&" * 2000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    slow.append(s)
    begun, cut = time.monotonic(), set()
    while len(cut) < len(slow) and time.monotonic() - begun < 90:
        for i, s in enumerate(slow):
            try:
                if i not in cut:
                    s.send(b"a")
            except OSError:
                cut.add(i)
        for i in [slow.index(s) for s in select.select(slow, [], [], 0)[0]]:
            cut.add(i)
        answer_began = time.monotonic()
        assert server.get("/healthz").status == 200
        assert time.monotonic() - answer_began < 2
        time.sleep(1)
    took = time.monotonic() - begun
    assert len(cut) == len(slow), f"{len(slow) - len(cut)} are still connected"
    assert 25 < took < 80, took
    for s in slow:
        s.close()


def read_slowly(server, task_id, headers, address="127.0.0.1"):
    """Asks for a result and takes only its first bytes; returns the socket and these."""
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    s.settimeout(api.PATIENCE)
    s.bind((address, 0))
    s.connect(("127.0.0.1", server.port))
    s.sendall(head("GET", f"/result/{task_id}", **headers))
    return s, s.recv(1000)


def bytes_until_cut(s):
    """What still comes before the server ends the connection, which it keeps after a whole reply."""
    return len(read_all(s))


@pytest.mark.parametrize("keys", [True, False])
def test_slow_readers_of_large_results_take_no_memory_from_others(start, keys):
    server = start("--echo", "--held-max", str(8 << 20), *(["--key", "kiln_first"] if keys else []))
    first, second = (bearer("kiln_first"), bearer("kiln_second")) if keys else ({}, {})
    large = {"stdin": "x" * (3 << 20)}
    theirs = server.submit("/submit?wait=20", headers=first, **large).json["task_id"]
    ours = server.submit("/submit?wait=20", headers=second, **large).json["task_id"]
    time.sleep(0.2)
    # Without keys a client is an address.
    readers = [read_slowly(server, theirs, first, "127.0.0.1" if keys else "127.0.0.2")
               for _ in range(5)]
    got = [int(data.split()[1]) for _, data in readers]
    assert got == [200, 200, 503, 503, 503], "the bound is for replies too"
    assert b"overloaded" in readers[2][1] and b"Retry-After" in readers[2][1]
    # Whose result has no room hears that the task is accepted, and asks for it later.
    answer = server.submit("/submit?wait=20", headers=first, **large)
    assert (answer.status, answer.json["status"]) == (202, "running"), answer
    assert answer.headers["Location"] == "/result/" + answer.json["task_id"]
    begun = time.monotonic()
    while (answer := server.get(f"/result/{ours}", headers=second)).status == 503:
        assert time.monotonic() - begun < 30
        assert server.submit(headers=second).status == 201, "submissions have room of their own"
        time.sleep(0.2)
    assert answer.status == 200 and len(answer.json["stdout"]) == 3 << 20
    assert bytes_until_cut(readers[0][0]) < 3 << 20, "the one that was slow is cut"
    for s, _ in readers:
        s.close()
    assert server.get(f"/result/{theirs}", headers=first).status == 200


def peak_memory(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        return next(int(line.split()[1]) << 10 for line in f if line.startswith("VmHWM:"))


def test_many_reads_of_large_results_leave_memory_and_turns_to_others(start):
    """Too large for the cache: each read brings a copy, and another to be written out."""
    server = start("--echo", "--key", "kiln_first", "--body-max", str(64 << 20),
                   "--held-max", str(64 << 20))
    first, second = bearer("kiln_first"), bearer("kiln_second")
    large = server.submit("/submit?wait=60", headers=first, stdin="x" * (16 << 20)).json["task_id"]
    ours = server.submit("/submit?wait=60", headers=second, stdin="x" * (5 << 20)).json["task_id"]
    before = peak_memory(server.process.pid)
    readers = []
    for _ in range(100):
        s = server.connect()
        s.sendall(head("GET", f"/result/{large}", **first))
        readers.append(s)
    begun = time.monotonic()
    while (answer := server.get(f"/result/{ours}", headers=second)).status == 503:
        assert time.monotonic() - begun < 60
        time.sleep(0.2)
    assert len(answer.json["stdout"]) == 5 << 20
    assert server.submit("/submit?wait=20", headers=second).status == 200
    for s in readers:
        s.close()
    # 100 of them at once would be 3.2 GB.
    assert peak_memory(server.process.pid) - before < 600 << 20


def test_slow_senders_of_large_bodies_take_no_memory_from_others(start):
    server = start("--held-max", str(4 << 20), "--key", "kiln_first")
    senders = []
    for _ in range(4):
        s = server.connect()
        s.sendall(head(Content_Length=str(3 << 20), **bearer("kiln_first")) + b"x" * ((3 << 20) - 1))
        senders.append(s)
    body = json.dumps(GOOD | {"stdin": "x" * (1 << 20)})
    begun = time.monotonic()
    while (answer := server.request("POST", "/submit", body, bearer("kiln_second"))).status == 503:
        assert time.monotonic() - begun < 30
        time.sleep(0.2)
    assert answer.status == 201, answer
    for s in senders:
        s.close()


def test_reader_that_does_not_read_is_cut(start):
    server = start("--echo")
    task = server.submit("/submit?wait=20", stdin="x" * (4 << 20)).json
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        s.connect(("127.0.0.1", server.port))
        s.sendall(head("GET", f"/result/{task['task_id']}") * 3)
        time.sleep(0.5)
        assert server.alive()
        server.terminate()  # with a reply that nobody takes
        begun = time.monotonic()
        assert server.process.wait(30) == 0
        assert time.monotonic() - begun < 15


def test_half_closed_client_gets_its_answer_or_nothing(echo):
    got = echo.raw(head(Content_Length=str(len(BODY)), Connection="close") + BODY, shut=True)
    assert got == b"" or statuses(got) == [201]
    assert echo.raw(head(Content_Length="100") + b"{", shut=True) == b""
    assert echo.alive()


def test_clients_that_leave_at_any_point(echo):
    whole = head(Content_Length=str(len(BODY)), path="/submit?wait=5") + BODY
    for at in range(0, len(whole) + 1, 5):
        with echo.connect(5) as s:
            s.sendall(whole[:at])
            if at % 2:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    assert echo.alive()


def test_header_flood_and_long_lines(echo):
    flood = b"".join(b"X-%d: %s\r\n" % (i, b"v" * 100) for i in range(5000))
    for data in (head("GET", "/healthz")[:-2] + flood + b"\r\n",
                 b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"v" * (1 << 20) + b"\r\n\r\n",
                 b"GET /" + b"a" * (1 << 20) + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
                 b"GET /tasks?" + b"a=1&" * 300 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"):
        got = echo.raw(data, timeout=20)
        assert got == b"" or got.split()[1] in (b"400", b"413", b"414", b"431"), got[:100]
    assert echo.alive()


def test_no_http_at_all(echo):
    for data in (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\x00" * 10000, b"\r\n" * 1000,
                 b"GET\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", bytes(range(256)) * 40):
        echo.raw(data, shut=True, timeout=10)
    assert echo.alive()


# ---- many ----

def test_thousand_connections(echo):
    conns = [echo.connect() for _ in range(1000)]
    try:
        for s in conns:
            s.sendall(head("GET", "/healthz"))
        for s in conns:
            assert s.recv(4096).startswith(b"HTTP/1.1 200")
        for s in conns:
            s.sendall(head(path="/submit?wait=30", Content_Length=str(len(BODY))) + BODY)
        for s in conns:
            assert s.recv(4096).startswith(b"HTTP/1.1 200")
    finally:
        for s in conns:
            s.close()


def waiting(server):
    for line in server.get("/metrics").body.decode().splitlines():
        if line.startswith("kiln_http_waiters "):
            return int(float(line.split()[1]))
    return 0


def wait_for(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_two_thousand_waiters_for_one_task_are_all_woken(start):
    server = start()
    task_id = server.submit().json["task_id"]
    conns = [server.connect() for _ in range(2000)]
    try:
        for s in conns:
            s.sendall(head("GET", f"/result/{task_id}?wait=60"))
        wait_for(lambda: waiting(server) == 2000)
        assert server.request("DELETE", f"/tasks/{task_id}").json["status"] == "cancelled"
        begun = time.monotonic()
        for s in conns:
            assert b'"status":"cancelled"' in s.recv(4096)
        assert time.monotonic() - begun < 15
        wait_for(lambda: waiting(server) == 0)
    finally:
        for s in conns:
            s.close()


def test_waiters_are_bounded_and_leave_no_task_behind(start):
    server = start("--waiters", "3")
    task_id = server.submit().json["task_id"]
    conns = [server.connect() for _ in range(3)]
    for s in conns:
        s.sendall(head("GET", f"/result/{task_id}?wait=60"))
    wait_for(lambda: waiting(server) == 3)
    for answer in (server.get(f"/result/{task_id}?wait=1"), server.submit("/submit?wait=1")):
        problem(answer, 503, "too-many-waiters")
        assert int(answer.headers["Retry-After"]) >= 1
    assert server.get(f"/result/{task_id}").status == 200
    assert server.get(f"/result/{task_id}?wait=0").status == 200
    assert len(server.get("/tasks").json["tasks"]) == 1
    for s in conns:
        s.close()


def test_connections_over_the_limit_wait_their_turn(start):
    server = start("--connections", "20")
    conns = [server.connect() for _ in range(20)]
    for s in conns:
        s.sendall(head("GET", "/healthz"))
    for s in conns:
        assert s.recv(4096).startswith(b"HTTP/1.1 200")
    with server.connect() as late:
        late.sendall(head("GET", "/healthz"))
        time.sleep(0.3)
        for s in conns[:5]:
            s.close()
        begun = time.monotonic()
        assert late.recv(4096).startswith(b"HTTP/1.1 200")
        assert time.monotonic() - begun < 3
    for s in conns[5:]:
        s.close()
    wait_for(server.alive)


# ---- closing ----

def test_those_who_wait_are_answered_at_the_end(start):
    server = start()
    task_id = server.submit().json["task_id"]
    conns = [server.connect() for _ in range(50)]
    for s in conns:
        s.sendall(head("GET", f"/result/{task_id}?wait=60"))
    submitter = server.connect()
    submitter.sendall(head(path="/submit?wait=60", Content_Length=str(len(BODY))) + BODY)
    idle = server.connect()
    wait_for(lambda: waiting(server) == 51)
    server.terminate()
    begun = time.monotonic()
    for s in conns:
        got = read_all(s)
        assert statuses(got) == [200] and b'"status":"queued"' in got, got
    got = read_all(submitter)
    assert statuses(got) == [202] and b"Location: /result/" in got, got
    assert read_all(idle) == b""
    assert server.process.wait(20) == 0
    assert time.monotonic() - begun < 10
    with pytest.raises(OSError):
        server.connect()


# ---- what is asked for ----

def test_submit_and_result(echo):
    answer = echo.submit(stdin="hi\n")
    assert answer.status == 201
    assert set(answer.json) == {"task_id", "status"} and answer.json["status"] == "queued"
    assert answer.headers["Location"] == f"/result/{answer.json['task_id']}"
    for header, value in (("X-Content-Type-Options", "nosniff"), ("Cache-Control", "no-store"),
                          ("Content-Type", "application/json")):
        assert answer.headers[header] == value
    task = echo.get(f"/result/{answer.json['task_id']}?wait=20").json
    assert (task["status"], task["outcome"], task["stdout"]) == ("done", "ok", "hi\n")
    for prefix in ("", "/v1"):
        assert echo.get(f"{prefix}/result/{answer.json['task_id']}").json == task
        assert echo.get(f"{prefix}/result/{answer.json['task_id'].upper()}").json == task


def test_output_that_is_not_text_comes_as_base64(echo):
    task = echo.submit("/submit?wait=20", stdin="/wA=", stdin_encoding="base64").json
    assert (task["stdout"], task["stdout_encoding"]) == ("/wA=", "base64")
    task = echo.submit("/submit?wait=20", stdin="AAEi", stdin_encoding="base64").json
    assert (task["stdout"], task["stdout_encoding"]) == ("\0\1\"", "utf8")


def test_large_bodies_come_back_as_they_went(echo):
    text = "".join(chr(32 + i % 5000) for i in range(300000) if not 0xD800 <= 32 + i % 5000 < 0xE000)
    task = echo.submit("/submit?wait=60", stdin=text).json
    assert task["stdout"] == text


@pytest.mark.parametrize("wait", ["0", "0.5", "1e-3", "2.0e0", "1.1754943508222875e-38", "-0.0"])
def test_wait_takes_json_numbers(echo, wait):
    assert echo.submit(f"/submit?wait={wait}").status in (200, 202)


@pytest.mark.parametrize("path", ["/submit?wait=60.00000000000001", "/submit?wait=-1", "/submit?wait=61",
                                  "/submit?wait=", "/submit?wait", "/submit?wait=1&wait=1",
                                  "/submit?wait=%201", "/submit?wait=1%00", "/submit?wait=[1]",
                                  "/submit?wait=nan", "/submit?wait=1e999", "/submit?x=1",
                                  "/submit?wait=1&x%00=1"])
def test_query_is_strict(echo, path):
    problem(echo.request("POST", path, GOOD), 400, "invalid-parameter")


@pytest.mark.parametrize("query", ["limit=0", "limit=201", "limit=1.0", "limit=", "cursor=x", "status=Done",
                                   "before=1", "limit=1&limit=1"])
def test_list_query_is_strict(echo, query):
    assert query.split("=")[0] in problem(echo.get(f"/tasks?{query}"), 400, "invalid-parameter")["detail"]


def test_open_calls_take_no_query(echo):
    for path in ("/healthz", "/readyz", "/languages", "/metrics", "/openapi.json", "/", "/problems"):
        assert echo.get(path).status == 200, path
        problem(echo.get(path + "?x=1"), 400, "invalid-parameter")


def test_wait_ends_when_the_time_is_up(start):
    server = start()
    begun = time.monotonic()
    answer = server.submit("/submit?wait=0.4")
    assert 0.39 < time.monotonic() - begun < 2
    assert answer.status == 202 and answer.json["status"] == "queued"
    assert answer.headers["Location"].endswith(answer.json["task_id"])
    begun = time.monotonic()
    assert server.get(f"/result/{answer.json['task_id']}?wait=0.4").json == answer.json
    assert 0.39 < time.monotonic() - begun < 2


def test_idempotency(start):
    server = start()
    key = {"Idempotency-Key": "once"}
    one, two = server.submit(headers=key), server.submit(headers=key)
    assert (one.status, two.status) == (201, 200) and one.json == two.json
    assert two.headers["Location"] == one.headers["Location"]
    problem(server.submit(headers=key, stdin="other"), 409, "idempotency-conflict")
    three = server.submit("/submit?wait=0.1", headers=key)
    assert three.status == 202 and three.json["task_id"] == one.json["task_id"]
    server.request("DELETE", "/tasks/" + one.json["task_id"])
    assert server.submit(headers=key).json == {"task_id": one.json["task_id"], "status": "cancelled"}
    four = server.submit("/submit?wait=5", headers=key)
    assert four.status == 200 and four.json["status"] == "cancelled"
    for bad in ("", "x" * 256, "a b", "\u00e4"):
        headers = {"Idempotency-Key": bad.encode("latin-1")}
        problem(server.submit(headers=headers), 400, "invalid-header")
    assert len(server.get("/tasks").json["tasks"]) == 1


def test_full_queue(start):
    server = start("--queue-max", "5")
    answers = [server.submit() for _ in range(8)]
    assert [a.status for a in answers] == [201] * 5 + [429] * 3
    for answer in answers[5:]:
        told = problem(answer, 429, "queue-full")
        assert "5 tasks" in told["detail"] and "queue_max" in told["detail"], told
        assert told["ceiling"] == 5
        assert int(answer.headers["Retry-After"]) >= 1
    assert len(server.get("/tasks").json["tasks"]) == 5
    # What is refused for another reason takes no room.
    server.submit(headers={"Idempotency-Key": "x"})


def test_refused_and_repeated_submissions_give_their_room_back(start):
    server = start("--queue-max", "2")
    key = {"Idempotency-Key": "once"}
    assert server.submit(headers=key).status == 201
    for _ in range(5):
        assert server.submit(headers=key).status == 200
        problem(server.submit(headers=key, stdin="x"), 409)
        problem(server.submit(language="pyton"), 422)
    assert server.submit().status == 201
    problem(server.submit(), 429)


def test_cancel(start):
    server = start()
    task_id = server.submit().json["task_id"]
    answer = server.request("DELETE", f"/tasks/{task_id}")
    assert answer.status == 200 and answer.json["status"] == "cancelled", answer
    assert answer.json["stdout"] is None
    assert "cancelled" in problem(server.request("DELETE", f"/tasks/{task_id}"), 409, "already-final")["detail"]
    problem(server.request("DELETE", f"/tasks/{UNKNOWN}"), 404, "unknown-task")
    problem(server.request("DELETE", "/tasks/x"), 400, "invalid-task-id")


def test_list_pages(start):
    server = start()
    ids = [server.submit(language=("py", "c")[i % 2]).json["task_id"] for i in range(23)]
    seen, query = [], "/tasks?limit=10"
    while query:
        page = server.get(query).json
        seen += [t["task_id"] for t in page["tasks"]]
        cursor = page["next_cursor"]
        query = cursor and f"/tasks?limit=10&cursor={cursor}"
    assert seen == ids[::-1]
    for language in ("py", "python"):
        listed = server.get(f"/tasks?language={language}").json["tasks"]
        assert [t["task_id"] for t in listed] == ids[::2][::-1]
        assert {t["language"] for t in listed} == {"python"}
    assert server.get("/tasks?language=nothing").json == {"tasks": [], "next_cursor": None}
    assert server.get("/tasks?status=done").json["tasks"] == []


def test_methods_and_paths(echo):
    for method, path, allow in (("GET", "/submit", "POST"), ("PUT", "/submit", "POST"),
                                ("OPTIONS", "/submit", "POST"), ("POST", "/tasks", "GET, HEAD"),
                                ("GET", f"/tasks/{UNKNOWN}", "DELETE"), ("TRACE", "/", "GET, HEAD"),
                                ("BREW", "/healthz", "GET, HEAD")):
        answer = echo.request(method, path)
        problem(answer, 405, "method-not-allowed")
        assert answer.headers["Allow"] == allow, (method, path)
    for path in ("/nothing", "/submit/", "/v1", "/v2/submit", "//submit", "/healthz/x", "/Submit"):
        problem(echo.get(path), 404, "not-found")
    answer = echo.request("HEAD", "/languages")
    assert answer.status == 200 and answer.body == b"" and int(answer.headers["Content-Length"]) > 100


def test_problem_types_can_be_looked_up(echo):
    kinds = echo.get("/problems").json["problems"]
    assert len({k["code"] for k in kinds}) == len(kinds) > 20
    for kind in kinds:
        assert echo.get(kind["type"]).json == kind
    problem(echo.get("/problems/nothing"), 404)


def test_language_that_is_not_installed(echo):
    body = problem(echo.submit(language="rb"), 422, "language-not-installed")
    assert body["install"] == "apt-get install ruby"
    listed = {entry["name"]: entry for entry in echo.get("/languages").json["languages"]}
    assert listed["ruby"]["installed"] is False and listed["ruby"]["install"] == "apt-get install ruby"
    assert listed["python"]["installed"] is True and listed["python"]["install"] is None


# ---- who may ask ----

@pytest.mark.parametrize("headers, code", [
    ({"Host": "evil.example"}, "foreign-host"), ({"Host": "127.0.0.1.evil.example"}, "foreign-host"),
    ({"Host": "[::2]"}, "foreign-host"), ({"Host": ""}, "foreign-host"), ({"Host": ":80"}, "foreign-host"),
    ({"Host": "[::1]x"}, "foreign-host"), ({"Host": "0.0.0.0"}, "foreign-host"),
    ({"Host": "localhost", "Origin": "http://evil.example"}, "foreign-origin"),
    ({"Host": "localhost", "Origin": "null"}, "foreign-origin"),
    ({"Host": "localhost", "Origin": "http://localhost:1"}, "foreign-origin"),
    ({"Host": "localhost", "Sec-Fetch-Site": "cross-site"}, "foreign-origin"),
])
def test_foreign_pages_are_refused(echo, headers, code):
    for path in ("/tasks", "/healthz", "/metrics"):
        problem(echo.get(path, headers=headers), 403, code)


@pytest.mark.parametrize("headers", [
    {"Host": "localhost:1"}, {"Host": "LOCALHOST"}, {"Host": "[::1]:80"}, {"Host": "127.1.2.3"},
    {"Host": "localhost:7", "Origin": "http://localhost:7"},
    {"Host": "localhost", "Sec-Fetch-Site": "same-origin"},
    {"Host": "localhost", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
])
def test_own_pages_are_answered(echo, headers):
    assert echo.get("/tasks", headers=headers).status == 200


def test_open_server_answers_any_host_but_no_foreign_page(start):
    server = start("--open", "--listen", "0.0.0.0:0")
    assert server.get("/tasks", headers={"Host": "kiln.example"}).status == 200
    problem(server.get("/tasks", headers={"Host": "kiln.example", "Origin": "http://other.example"}), 403)


def bearer(key):
    return {"Authorization": f"Bearer {key}"}


def test_keys_and_tenants(start):
    server = start("--key", "kiln_first", "--echo")
    for headers in ({}, bearer("kiln_wrong"), bearer(""), {"Authorization": "Basic eDp5"},
                    bearer("kiln_first "), bearer("x" * 1000)):
        for answer in (server.get("/tasks", headers=headers), server.submit(headers=headers)):
            problem(answer, 401, "unauthorized")
            assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    for path in ("/healthz", "/readyz", "/languages", "/metrics", "/openapi.json"):
        assert server.get(path).status == 200
    first, second = bearer("kiln_first"), bearer("kiln_second")
    task_id = server.submit("/submit?wait=20", headers=first).json["task_id"]
    # The same answer from the cache, and where the cache knows nothing.
    for _ in range(2):
        problem(server.get(f"/result/{task_id}", headers=second), 404, "unknown-task")
        assert server.get(f"/result/{task_id}", headers=first).status == 200
    problem(server.request("DELETE", f"/tasks/{task_id}", headers=second), 404)
    assert server.get("/tasks", headers=second).json["tasks"] == []
    key = {"Idempotency-Key": "same"}
    answers = [server.submit(headers=who | key) for who in (first, second)]
    assert [a.status for a in answers] == [201, 201]


def test_task_of_another_tenant_goes_the_way_of_one_that_is_not(start):
    """Answered from the cache at once it would be told apart by the time that it takes."""
    server = start("--key", "kiln_first", "--echo")
    first, second = bearer("kiln_first"), bearer("kiln_second")
    task_id = server.submit("/submit?wait=20", headers=first).json["task_id"]
    assert server.get(f"/result/{task_id}", headers=first).status == 200  # cached from here on
    with contextlib.closing(sqlite3.connect(os.path.join(server.directory, "harness.db"))) as db:
        db.execute("ALTER TABLE task RENAME TO away")
        db.commit()
    assert server.get(f"/result/{task_id}", headers=first).status == 200
    unknown = server.get(f"/result/{UNKNOWN}", headers=second)
    problem(unknown, 500)
    assert server.get(f"/result/{task_id}", headers=second).json == unknown.json


def test_keys_are_read_again_without_a_pause(start):
    server = start("--key", "kiln_first")
    end, slowest = time.monotonic() + 6, 0
    while time.monotonic() < end:
        begun = time.monotonic()
        assert server.get("/tasks", headers=bearer("kiln_first")).status == 200
        slowest = max(slowest, time.monotonic() - begun)
        time.sleep(0.05)
    assert slowest < 1, slowest


def test_first_key_locks_a_server_that_runs(start):
    server = start("--echo")
    assert server.get("/tasks").status == 200
    key, now = "kiln_late", int(time.time() * 1e6)
    with contextlib.closing(sqlite3.connect(os.path.join(server.directory, "harness.db"))) as db:
        db.execute("INSERT INTO api_key VALUES ('late', 'late', ?, ?, 0)",
                   (hashlib.sha256(key.encode()).digest(), now))
        db.commit()
        end = time.monotonic() + 10
        while server.get("/tasks").status == 200:
            assert time.monotonic() < end, "anybody is still let in"
            time.sleep(0.1)
        problem(server.submit(), 401, "unauthorized")
        assert server.get("/tasks", headers=bearer(key)).status == 200
        assert "keys are needed from now on" in server.log_text()
        # Nor is it opened under those who rely on it.
        db.execute("DELETE FROM api_key")
        db.commit()
        end = time.monotonic() + 10
        while server.get("/tasks", headers=bearer(key)).status == 200:
            assert time.monotonic() < end, "the key is gone"
            time.sleep(0.1)
        problem(server.get("/tasks"), 401, "unauthorized")


def add_key(server, key):
    with contextlib.closing(sqlite3.connect(os.path.join(server.directory, "harness.db"))) as db:
        db.execute("INSERT INTO api_key VALUES (?, 'late', ?, ?, 0)",
                   (key, hashlib.sha256(key.encode()).digest(), int(time.time() * 1e6)))
        db.commit()


def test_key_just_added_counts_at_once(start):
    server = start("--key", "kiln_first")
    for key, ask in (("kiln_a", lambda who: server.get("/tasks", headers=who)),
                     ("kiln_b", lambda who: server.submit(headers=who)),
                     ("kiln_c", lambda who: server.submit(headers=who, stdin="x" * 100000))):
        assert server.get("/tasks", headers=bearer("kiln_first")).status == 200
        time.sleep(0.4)
        add_key(server, key)
        answer = ask(bearer(key))
        if key == "kiln_c":  # A large body is kept for nobody unknown: the next try is let in.
            problem(answer, 401, "unauthorized")
            time.sleep(0.2)
            answer = ask(bearer(key))
        assert answer.status in (200, 201), (key, answer)


def test_unknown_keys_do_not_keep_the_store_busy(start):
    """The reads of the keys are counted where they fail, and those who are known see nothing of it."""
    server = start("--key", "kiln_first")

    def failures():
        lines = server.get("/metrics").body.decode().splitlines()
        return sum(float(i.split()[-1]) for i in lines if i.startswith("kiln_store_errors_total"))

    assert server.get("/tasks", headers=bearer("kiln_first")).status == 200
    with contextlib.closing(sqlite3.connect(os.path.join(server.directory, "harness.db"))) as db:
        db.execute("ALTER TABLE api_key RENAME TO away")
        db.commit()
    before, begun, asked = failures(), time.monotonic(), 0
    while time.monotonic() < begun + 2:
        assert server.get("/tasks", headers=bearer("kiln_wrong")).status in (401, 500, 503)
        assert server.get("/tasks", headers=bearer("kiln_first")).status == 200
        asked += 1
    reads, allowed = failures() - before, (time.monotonic() - begun) * 4 + 2
    assert asked > 2 * allowed and 2 <= reads <= allowed, (asked, reads)


def test_unknown_key_is_refused_before_a_body_is_read(start):
    server = start("--key", "kiln_first")
    assert server.get("/tasks", headers=bearer("kiln_first")).status == 200
    got = server.raw(head(Content_Length=str(7 << 20), Authorization="Bearer kiln_wrong") + b"{")
    assert statuses(got) == [401], got
    # Nor is it when the keys could be looked at again.
    time.sleep(0.4)
    got = server.raw(head(Content_Length=str(7 << 20), Authorization="Bearer kiln_wrong") + b"{")
    assert statuses(got) == [401], got


def test_submissions_side_by_side(echo):
    """Keep-alive connections from many threads: each gets its own answers."""
    failures = []

    def client(number):
        import http.client
        c = http.client.HTTPConnection("127.0.0.1", echo.port, timeout=60)
        for i in range(40):
            text = f"{number}-{i}"
            c.request("POST", "/submit?wait=30", json.dumps(GOOD | {"stdin": text}),
                      {"Content-Type": "application/json"})
            answer = c.getresponse()
            task = json.loads(answer.read())
            if (answer.status, task["stdout"]) != (200, text):
                failures.append((text, answer.status, task))
        c.close()
    threads = [threading.Thread(target=client, args=(n,)) for n in range(16)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failures, failures[:3]
