# SPDX-License-Identifier: Apache-2.0
"""Spans by OTLP/HTTP, as a collector gets them from an API and a scheduler that are processes of their own."""

import http.server
import json
import os
import secrets
import socket
import tempfile
import threading

import pytest

from cluster import URLS, Cluster, free_port, wait_until

pytestmark = pytest.mark.skipif(any(u not in os.environ for u in URLS),
                                reason="needs the servers of tools/stack.sh")

TOKEN = secrets.token_hex(8)


class Collector(http.server.ThreadingHTTPServer):
    """Keeps what it is sent; while "status" is not 200 it refuses."""
    daemon_threads = True

    def __init__(self, port=0):
        super().__init__(("127.0.0.1", port), Handler)
        self.status, self.refused, self.spans, self.headers = 200, 0, [], []
        self.thread = threading.Thread(target=self.serve_forever)
        self.thread.start()

    def close(self):
        self.shutdown()
        self.server_close()
        self.thread.join()

    def of(self, trace):
        return [s for s in self.spans if s["traceId"] == trace]


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):  # pylint: disable=invalid-name
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.status == 200:
            for resource in json.loads(body)["resourceSpans"]:
                service = attributes(resource["resource"])["service.name"]
                for scope in resource["scopeSpans"]:
                    self.server.spans += [{**s, "service": service} for s in scope["spans"]]
            self.server.headers.append((self.path, dict(self.headers)))
        else:
            self.server.refused += 1
        self.send_response(self.server.status)
        self.send_header("Retry-After", "1")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *args):  # pylint: disable=arguments-differ
        pass


def attributes(of):
    return {a["key"]: next(iter(a["value"].values())) for a in of["attributes"]}


def one(spans, name):
    found = [s for s in spans if s["name"] == name]
    assert len(found) == 1, (name, spans)
    return found[0]


def start_cluster(directory, endpoint, *config):
    os.chmod(directory, 0o755)
    return Cluster(directory, apis=1, schedulers=1, runners=1, config=[
        f"--otlp-endpoint={endpoint}", f"--otlp-headers=Authorization: Bearer {TOKEN}", *config]).wait_ready()


@pytest.fixture(name="collector")
def make_collector():
    collector = Collector()
    yield collector
    collector.close()


@pytest.fixture(name="cluster")
def make_cluster(collector):
    with tempfile.TemporaryDirectory(prefix="kiln-trace-") as directory:
        cluster = start_cluster(directory, f"http://127.0.0.1:{collector.server_address[1]}/")
        yield cluster
        cluster.close()


def context(flags="01"):
    trace, span = secrets.token_hex(16), secrets.token_hex(8)
    return trace, span, {"traceparent": f"00-{trace}-{span}-{flags}"}


def submit(cluster, body, headers=None):
    answer = cluster.client().request("POST", "/submit?wait=20", body, headers)
    assert answer.status == 200, answer
    return answer.json


def counts(cluster, kind):
    """Of API and scheduler together."""
    text = "".join(p.get("/metrics").body.decode() for p in cluster.apis + cluster.schedulers)
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines()
               if line.startswith(f'kiln_trace_spans_total{{result="{kind}"}}'))


def test_the_way_of_a_task(cluster, collector):
    """One trace from the client's span to the commit, whose parts have the right parents, order and facts."""
    trace, client_span, headers = context()
    program = '#include <stdio.h>\nint main(void) { return puts("hello") < 0; }\n'
    task = submit(cluster, {"language": "c", "code": program}, headers)
    assert task["outcome"] == "ok", task
    names = {"submit", "publish", "queue wait", "task", "dispatch", "compile", "run", "commit"}
    wait_until(lambda: len(collector.of(trace)) >= len(names), what="all spans")
    spans = collector.of(trace)
    assert {s["name"] for s in spans} == names and len(spans) == len(names), spans
    assert len({s["spanId"] for s in spans}) == len(spans)
    root, whole = one(spans, "submit"), one(spans, "task")
    assert root["parentSpanId"] == client_span
    for name, parent, service in (("publish", root, "kiln-api"), ("queue wait", root, "kiln-scheduler"),
                                  ("task", root, "kiln-scheduler"), ("dispatch", whole, "kiln-scheduler"),
                                  ("compile", whole, "kiln-scheduler"), ("run", whole, "kiln-scheduler"),
                                  ("commit", whole, "kiln-scheduler")):
        s = one(spans, name)
        assert (s["parentSpanId"], s["service"]) == (parent["spanId"], service), s
    for s in spans:
        assert int(s["startTimeUnixNano"]) <= int(s["endTimeUnixNano"]), s
        assert attributes(s)["kiln.task_id"] == task["task_id"], s
        assert "status" not in s, s
    order = [int(one(spans, name)["startTimeUnixNano"]) for name in ("submit", "task", "compile", "run", "commit")]
    assert order == sorted(order), spans
    facts = attributes(whole)
    assert (facts["kiln.language"], facts["kiln.attempt"], facts["kiln.state"]) == ("c", "1", "done"), facts
    assert facts["kiln.pod"] == "r0"
    run = one(spans, "run")
    took = (int(run["endTimeUnixNano"]) - int(run["startTimeUnixNano"])) // 1000
    assert abs(took / 1000 - task["usage"]["wall_ms"]) <= 1, (run, task)
    path, sent = collector.headers[0]
    assert path == "/v1/traces" and sent["Authorization"] == f"Bearer {TOKEN}"
    assert sent["Content-Type"] == "application/json"
    wait_until(lambda: counts(cluster, "exported") >= len(names), what="the count")
    assert counts(cluster, "dropped") == 0


@pytest.mark.parametrize("language, code, outcome, spans", [
    ("bash", "exit 3", "runtime_error", {"run"}),
    ("c", "int main(void) { return nothing; }", "compile_error", {"compile"}),
])
def test_what_the_program_did(cluster, collector, language, code, outcome, spans):
    """A program that fails is no failure of Kiln: the run says what it was, the task's span is in order."""
    trace, _, headers = context()
    assert submit(cluster, {"language": language, "code": code}, headers)["outcome"] == outcome
    wait_until(lambda: any(s["name"] == "task" for s in collector.of(trace)), what="the task's span")
    found = {s["name"]: s for s in collector.of(trace)}
    assert {"compile", "run"} & set(found) == spans, found
    assert "status" not in found["task"]
    if "run" in found:
        assert attributes(found["run"])["kiln.outcome"] == outcome
    else:
        assert found["compile"]["status"]["code"] == 2


def test_who_decides(cluster, collector):
    """A client that does not sample is not traced; one that says nothing begins a trace of our own."""
    trace, _, headers = context("00")
    submit(cluster, {"language": "bash", "code": "echo no"}, headers)
    mine = submit(cluster, {"language": "bash", "code": "echo mine"}, {"traceparent": "nonsense"})["task_id"]

    def ours():
        return [s for s in collector.spans if attributes(s)["kiln.task_id"] == mine]
    wait_until(lambda: any(s["name"] == "task" for s in ours()), what="the task's span")
    assert len({s["traceId"] for s in ours()}) == 1
    assert "parentSpanId" not in one(ours(), "submit")
    assert not collector.of(trace)


def test_attempts_that_came_to_nothing(cluster, collector):
    """A runner that dies: that attempt's span has failed, the next one's has not."""
    trace, _, headers = context()
    body = {"language": "bash", "code": "sleep 2"}
    answer = cluster.client().request("POST", "/submit", body, headers)
    task_id = answer.json["task_id"]
    wait_until(lambda: cluster.client().get(f"/result/{task_id}").json["status"] == "running", what="it to run")
    cluster.runners[0].kill()
    cluster.runners[0].start()
    wait_until(lambda: cluster.client().get(f"/result/{task_id}").json["status"] == "done", what="it to be done")
    wait_until(lambda: len([s for s in collector.of(trace) if s["name"] == "task"]) == 2, what="two attempts")
    first, second = sorted((s for s in collector.of(trace) if s["name"] == "task"),
                           key=lambda s: int(s["startTimeUnixNano"]))
    assert first["status"] == {"code": 2, "message": "runner_lost"}, first
    assert "status" not in second and attributes(second)["kiln.attempt"] == "2", second


def test_collector_that_refuses_for_a_while(cluster, collector):
    """Nothing is lost of what it takes later, and no task waits for it."""
    collector.status = 503
    trace, _, headers = context()
    assert submit(cluster, {"language": "bash", "code": "echo on"}, headers)["stdout"] == "on\n"
    wait_until(lambda: collector.refused >= 2, what="refusals")
    collector.status = 200
    wait_until(lambda: {"submit", "task"} <= {s["name"] for s in collector.of(trace)}, what="the spans")
    assert counts(cluster, "dropped") == 0


def test_collector_that_is_not_there():
    """Tasks run as ever; it is said once, and what was dropped is counted. The end is not held up."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="kiln-trace-") as directory:
        cluster = start_cluster(directory, f"http://127.0.0.1:{port}")
        try:
            for _ in range(20):
                assert submit(cluster, {"language": "bash", "code": "echo on"})["stdout"] == "on\n"
            wait_until(lambda: "could not send spans" in cluster.apis[0].log_text(), what="the log line")
            cluster.apis[0].stop(15)
            assert cluster.apis[0].log_text().count("could not send spans") == 1
        finally:
            cluster.close()


def test_collector_that_takes_connections_and_is_silent():
    with socket.create_server(("127.0.0.1", 0)) as silent, \
            tempfile.TemporaryDirectory(prefix="kiln-trace-") as directory:
        cluster = start_cluster(directory, f"http://127.0.0.1:{silent.getsockname()[1]}")
        try:
            assert submit(cluster, {"language": "bash", "code": "echo on"})["stdout"] == "on\n"
        finally:
            cluster.close()


@pytest.mark.parametrize("flag, said", [
    ("--otlp-endpoint=collector:4318", 'is no address of a collector'),
    ("--otlp-headers=Bearer", 'is not "Name: value"'),
    ("--trace-percent=101", "trace_percent"),
])
def test_wrong_settings_are_named(cluster, flag, said):
    base = [f"--listen=127.0.0.1:{free_port()}", *cluster.shared]
    if "endpoint" not in flag:
        base.append("--otlp-endpoint=http://127.0.0.1:1")
    told = cluster.kiln("api", *base, flag, check=False)
    assert told.returncode != 0 and said in told.stderr, told
