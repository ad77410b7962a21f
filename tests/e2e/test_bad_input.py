# SPDX-License-Identifier: Apache-2.0
"""Bad input: the right status, a message that names the field, and a server that goes on."""

import json
import socket
import time

import pytest

from harness import PATIENCE, problem

GOOD = {"language": "python", "code": "print(1)"}


def body(**fields):
    return json.dumps(GOOD | fields)


def limits(**fields):
    return body(limits=fields)


def named(*names):
    return body(files=[{"name": n, "content": ""} for n in names])


MALFORMED = [
    # (what, body, status, words that the answer must have)
    ("empty body", "", 400, ()),
    ("not JSON", "print(1)", 400, ()),
    ("cut short", '{"language": "python", "code": "pri', 400, ()),
    ("text after the object", body() + "x", 400, ()),
    ("two objects", body() + body(), 400, ()),
    ("an array", "[]", 400, ()),
    ("a number", "1", 400, ()),
    ("null", "null", 400, ()),
    ("duplicate key", '{"language": "python", "language": "c", "code": "1"}', 400, ("language",)),
    ("duplicate key below", '{"language": "python", "code": "1", "limits": {"cpu_ms": 1, "cpu_ms": 2}}',
     400, ("cpu_ms",)),
    ("NaN", '{"language": "python", "code": "1", "limits": {"cpu_ms": NaN}}', 400, ()),
    ("Infinity", '{"language": "python", "code": "1", "limits": {"cpu_ms": Infinity}}', 400, ()),
    ("huge exponent", '{"language": "python", "code": "1", "limits": {"cpu_ms": 1e999}}', 400, ()),
    ("trailing comma", '{"language": "python", "code": "1",}', 400, ()),
    ("comment", '{"language": "python", /* x */ "code": "1"}', 400, ()),
    ("single quotes", "{'language': 'python'}", 400, ()),
    ("invalid UTF-8", b'{"language": "python", "code": "\xff\xfe"}', 400, ()),
    ("overlong UTF-8", b'{"language": "python", "code": "\xc0\xaf"}', 400, ()),
    ("surrogate in UTF-8", b'{"language": "python", "code": "\xed\xa0\x80"}', 400, ()),
    ("lone surrogate escape", '{"language": "python", "code": "\\ud800"}', 400, ()),
    ("deep nesting", "[" * 100000, (400, 413), ("nesting",)),
    ("deep nesting in a field", '{"language": "python", "code": ' + "[" * 50000 + "]" * 50000 + "}", (400, 413), ("nesting",)),
    ("unknown field", body(colour="red"), (400, 422), ("colour",)),
    ("unknown limit", limits(colour=1), (400, 422), ("colour",)),
    ("unknown field of a file", body(files=[{"name": "a", "content": "", "mode": 7}]), (400, 422), ("mode",)),
    ("language missing", '{"code": "1"}', (400, 422), ("language",)),
    ("language a number", body(language=3), (400, 422), ("language",)),
    ("language null", body(language=None), (400, 422), ("language",)),
    ("code a number", body(code=3), (400, 422), ("code",)),
    ("code and files missing", '{"language": "python"}', (400, 422), ("code",)),
    ("code empty", body(code=""), (400, 422), ("code",)),
    ("stdin a number", body(stdin=1), (400, 422), ("stdin",)),
    ("args text", body(args="one"), (400, 422), ("args",)),
    ("args of numbers", body(args=[1]), (400, 422), ("args",)),
    ("argument with NUL", body(args=["a\x00b"]), (400, 422), ("args",)),
    ("files an object", body(files={}), (400, 422), ("files",)),
    ("file a text", body(files=["a"]), (400, 422), ("files",)),
    ("file without name", body(files=[{"content": ""}]), (400, 422), ("name",)),
    ("file without content", body(files=[{"name": "a"}]), (400, 422), ("content",)),
    ("limits an array", body(limits=[]), (400, 422), ("limits",)),
    ("limit a text", limits(cpu_ms="2000"), (400, 422), ("cpu_ms",)),
    ("limit true", limits(cpu_ms=True), (400, 422), ("cpu_ms",)),
    ("limit a fraction", limits(cpu_ms=1.5), (400, 422), ("cpu_ms",)),
    ("priority unknown", body(priority="urgent"), (400, 422), ("priority",)),
    ("priority a number", body(priority=1), (400, 422), ("priority",)),
    ("deadline zero", body(deadline_ms=0), (400, 422), ("deadline_ms",)),
    ("deadline negative", body(deadline_ms=-1), (400, 422), ("deadline_ms",)),
    ("deadline a text", body(deadline_ms="1s"), (400, 422), ("deadline_ms",)),
    ("encoding unknown", body(code_encoding="utf16"), (400, 422), ("code_encoding",)),
    ("base64 invalid", body(code="!!!", code_encoding="base64"), (400, 422), ("code",)),
    ("base64 cut", body(code="YWJ", code_encoding="base64"), (400, 422), ("code",)),
    ("base64 with blanks", body(code="YW Jj", code_encoding="base64"), (400, 422), ("code",)),
    ("base64 of stdin", body(stdin="*", stdin_encoding="base64"), (400, 422), ("stdin",)),
    ("base64 of a file", body(files=[{"name": "a", "content": "*", "encoding": "base64"}]), (400, 422),
     ("content",)),
    ("entry without files", '{"language": "python", "entry": "a.py"}', (400, 422), ()),
    ("entry that is no file", '{"language": "python", "entry": "b.py", "files": [{"name": "a.py", "content": ""}]}',
     (400, 422), ("entry",)),
]


@pytest.mark.parametrize("what, text, status, words", MALFORMED, ids=[m[0] for m in MALFORMED])
def test_malformed(server, what, text, status, words):
    answer = server.post("/submit", text)
    expected = status if isinstance(status, tuple) else (status,)
    assert answer.status in expected, answer
    problem(answer, answer.status, *words)


@pytest.mark.parametrize("name", ["cpu_ms", "wall_ms", "memory_bytes", "processes", "output_bytes"])
@pytest.mark.parametrize("value", [0, -1, -(1 << 63), 1 << 62, (1 << 63) - 1, 1 << 64, 10**30])
def test_limits_outside_their_range(server, name, value):
    answer = server.post("/submit", limits(**{name: value}))
    assert answer.status in (400, 422), answer
    problem(answer, answer.status, name)


@pytest.mark.parametrize("name", ["cpu_ms", "wall_ms", "memory_bytes", "processes", "output_bytes"])
def test_ceiling_is_named(server, name):
    answer = server.post("/submit", limits(**{name: 1 << 45}))
    detail = problem(answer, 422, name)["detail"]
    ceiling = [int(word) for word in "".join(ch if ch.isdigit() else " " for ch in detail).split()]
    assert any(n < 1 << 45 for n in ceiling), detail


@pytest.mark.parametrize("language, near", [("pythn", "python"), ("javascrip", "javascript"),
                                            ("rubyy", "ruby"), ("gol", "go")])
def test_unknown_language_lists_near_names(server, language, near):
    problem(server.post("/submit", body(language=language)), 422, language, near)


def test_unknown_language_that_is_like_none(server):
    problem(server.post("/submit", body(language="zzzzzzzzzzzz")), 422, "zzzzzzzzzzzz")
    problem(server.post("/submit", body(language="")), 422, "language")
    problem(server.post("/submit", body(language="x" * 5000)), 422, "language")


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/passwd", "", ".", "..", "a/b", "a//b", "a/", "./a",
                                  "a\x00b", "a\nb", "a\x1bb", "a\x7fb", "x" * 256, "/".join("ab" * 200),
                                  "a\\b\x01"])
def test_file_names(server, name):
    answer = server.post("/submit", named(name))
    assert answer.status in (400, 422), answer
    problem(answer, answer.status, "name")


def test_duplicate_file_names(server):
    answer = server.post("/submit", named("a", "a"))
    assert answer.status in (400, 422)
    problem(answer, answer.status, "a")


def test_file_with_the_name_of_the_source(server):
    answer = server.post("/submit", named("main.py"))
    assert answer.status in (400, 422), answer
    problem(answer, answer.status, "main.py")


def test_too_many_files(server):
    problem(server.post("/submit", named(*(f"f{i}" for i in range(101)))), 413, "files", "100")
    task = server.wait(server.post("/submit", named(*(f"f{i}" for i in range(100)))).json["task_id"])
    assert task["outcome"] == "ok", task


def test_too_many_arguments(server):
    answer = server.post("/submit", body(args=["a"] * 10000))
    assert answer.status in (413, 422), answer
    problem(answer, answer.status, "args")


def test_body_over_the_ceiling(server):
    problem(server.post("/submit", body(code="#" * (9 << 20))), 413, str(8 << 20))


def raw(server, data, shut=False, timeout=None):
    """Sends bytes as they are, returns what comes back until the server closes or is silent."""
    with socket.create_connection(("127.0.0.1", server.port), timeout or PATIENCE) as s:
        try:
            s.sendall(data)
            if shut:
                s.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        got = b""
        try:
            while chunk := s.recv(65536):
                got += chunk
        except (TimeoutError, ConnectionResetError):
            pass
        return got


def head(length, extra=""):
    return (f"POST /submit HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            f"Content-Length: {length}\r\nConnection: close\r\n{extra}\r\n").encode()


def test_announced_length_over_the_ceiling_is_refused(server):
    got = raw(server, head(1 << 40) + b"{", timeout=5)
    assert got.startswith(b"HTTP/1.1 413"), got[:200]


def test_chunked_body_over_the_ceiling_is_refused_while_it_comes(server):
    start = b"POST /submit HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n" \
            b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
    got = raw(server, start + chunk * 200 + b"0\r\n\r\n")
    assert got == b"" or got.startswith(b"HTTP/1.1 413"), got[:200]


def test_chunked_body_is_taken(server):
    text = body().encode()
    half = len(text) // 2
    data = b"POST /submit?wait=20 HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n" \
           b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    for part in (text[:half], text[half:]):
        data += f"{len(part):x}\r\n".encode() + part + b"\r\n"
    got = raw(server, data + b"0\r\n\r\n")
    assert got.startswith(b"HTTP/1.1 200"), got[:300]
    assert b'"1\\n"' in got


def test_slow_client_gets_its_answer(server):
    data = head(len(body())).replace(b"/submit", b"/submit?wait=20") + body().encode()
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as s:
        for at in range(0, len(data), 11):
            s.sendall(data[at:at + 11])
            time.sleep(0.01)
        got = b""
        while chunk := s.recv(65536):
            got += chunk
    assert got.startswith(b"HTTP/1.1 200"), got[:200]


def test_half_closed_client_does_no_harm(server):
    got = raw(server, head(len(body())) + body().encode(), shut=True)
    assert got == b"" or got.startswith(b"HTTP/1.1 201"), got[:200]


def test_clients_that_leave_in_the_middle(server):
    for data in (b"", b"POST", head(100), head(100) + b'{"language"', b"GET /result/", b"\r\n" * 50):
        with socket.create_connection(("127.0.0.1", server.port), 5) as s:
            s.sendall(data)


def test_clients_that_leave_while_they_wait(server):
    text = body(code="import time\ntime.sleep(1)").encode()
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", server.port), 5) as s:
            s.sendall(head(len(text)).replace(b"/submit", b"/submit?wait=30") + text)
            time.sleep(0.02)
    assert server.run("bash", "echo on")["stdout"] == "on\n"


def test_header_flood(server):
    many = "".join(f"X-H{i}: {'v' * 100}\r\n" for i in range(5000))
    got = raw(server, head(len(body()), many) + body().encode(), timeout=5)
    assert got == b"" or got.split()[1] in (b"431", b"413", b"400"), got[:200]
    got = raw(server, head(len(body()), "X: " + "v" * (1 << 20) + "\r\n"), timeout=5)
    assert got == b"" or got.split()[1] in (b"431", b"413", b"400"), got[:200]


def test_long_request_line(server):
    got = raw(server, b"GET /" + b"a" * 200000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", timeout=5)
    assert got == b"" or got.split()[1] in (b"414", b"431", b"413", b"400", b"404"), got[:200]


def test_garbage_instead_of_http(server):
    for data in (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\x00" * 1000, b"GET\r\n\r\n",
                 b"HELO\r\n\r\n" * 100):
        raw(server, data, shut=True, timeout=5)


@pytest.mark.parametrize("wait", ["-1", "61", "x", "", "1e3", "NaN", "0x1", "1,5", "99999999999999999999"])
def test_wait_outside_its_range(server, wait):
    problem(server.post(f"/submit?wait={wait}", body()), 400, "wait")
    task_id = server.submit("bash", "true")
    problem(server.get(f"/result/{task_id}?wait={wait}"), 400, "wait")


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded",
                                          "multipart/form-data; boundary=x", "application/jsonx", "x"])
def test_content_type(server, content_type):
    headers = {"Content-Type": content_type or ""}
    problem(server.post("/submit", body(), headers=headers), 415, "application/json")


def test_content_type_with_parameter_is_fine(server):
    headers = {"Content-Type": "application/json; charset=utf-8"}
    assert server.post("/submit", body(), headers=headers).status == 201


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "limit=-1", "limit=100000", "status=sleeping",
                                   "cursor=%%%", "cursor=abc"])
def test_list_with_bad_queries(server, query):
    problem(server.get(f"/tasks?{query}"), 400, query.split("=")[0])


@pytest.mark.parametrize("key", ["", "x" * 256, "a b\tc"])
def test_idempotency_key_outside_its_range(server, key):
    answer = server.post("/submit", body(), headers={"Idempotency-Key": key})
    problem(answer, 400, "Idempotency-Key")
