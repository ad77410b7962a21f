# SPDX-License-Identifier: Apache-2.0
"""Servers that are there and say nothing, or are not there: Kiln starts, answers, and names them."""

import json
import os
import selectors
import socket
import threading
import time
import urllib.parse

import pytest

import cluster
from harness import Client, wait_until

pytestmark = pytest.mark.skipif(any(u not in os.environ for u in cluster.URLS),
                                reason="needs the servers of tools/stack.sh")


class StallingProxy:
    """Passes bytes to a server on loopback, until it is told to keep them."""

    def __init__(self, port):
        self.to, self.stalled, self.ended = port, threading.Event(), False
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.selector, self.peers = selectors.DefaultSelector(), {}
        self.selector.register(self.listener, selectors.EVENT_READ)
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        while not self.ended:
            if self.stalled.is_set():
                time.sleep(0.02)
                continue
            for key, _ in self.selector.select(0.05):
                if key.fileobj is self.listener:
                    self.take()
                elif key.fileobj in self.peers:
                    self.move(key.fileobj)

    def take(self):
        near, _ = self.listener.accept()
        far = socket.create_connection(("127.0.0.1", self.to))
        self.peers |= {near: far, far: near}
        for s in (near, far):
            self.selector.register(s, selectors.EVENT_READ)

    def move(self, s):
        try:
            data = s.recv(65536)
            if data:
                self.peers[s].sendall(data)
                return
        except OSError:
            pass
        for end in (s, self.peers.pop(s)):
            self.selector.unregister(end)
            self.peers.pop(end, None)
            end.close()

    def close(self):
        self.ended = True
        self.thread.join()
        for s in [self.listener, *self.peers]:
            s.close()


@pytest.fixture
def silent_broker():
    """Takes connections and never says a word, as a broker that is stopped does."""
    with socket.create_server(("127.0.0.1", 0)) as s:
        yield f"amqp://guest:guest@127.0.0.1:{s.getsockname()[1]}/"


def test_api_starts_and_accepts_while_the_broker_is_silent(make_cluster, silent_broker):
    c = make_cluster(apis=0, schedulers=1, runners=1)
    real = c.shared[1]
    c.shared[1] = f"--queue={silent_broker}?prefix={c.name}"
    api = c.api("api").wait_ready()
    c.apis = [api]
    assert "queue" in api.get("/readyz").json["degraded"][0]
    wait_until(lambda: '"out of use","part":"queue"' in api.log_text(), what="the log says so")
    task_id = c.client().submit("bash", "echo kept")
    assert c.client().result(task_id)["status"] == "queued"
    api.stop()
    c.shared[1] = real
    c.apis = [c.api("late").wait_ready()]
    assert c.client().wait(task_id, 60)["stdout"] == "kept\n"


def test_kiln_queue_shows_the_outbox_while_the_broker_is_away(make_cluster):
    c = make_cluster(apis=0, schedulers=0, runners=0)
    c.shared[1] = "--queue=amqp://127.0.0.1:1/"
    c.apis = [c.api("api").wait_ready()]
    for _ in range(3):
        c.client().submit("bash", "echo")
    shown = c.kiln("queue", "--json", c.shared[0], c.shared[1], check=False)
    assert shown.returncode == 1 and "127.0.0.1:1: Connection refused" in shown.stderr, shown
    answer = json.loads(shown.stdout)
    assert answer["queues"] is None and answer["dead_letters"] is None
    assert answer["outbox"]["tasks"] == 3 and answer["outbox"]["oldest_at"]
    shown = c.kiln("queue", c.shared[0], c.shared[1], check=False)
    assert "Outbox: 3 tasks wait" in shown.stdout, shown
    assert c.kiln("queue", "replay", *c.shared[:2], check=False).stdout == ""


def test_store_that_says_nothing_is_named_and_no_limit_is_waived(make_cluster):
    c = make_cluster(apis=1, schedulers=0, runners=0).wait_ready()
    url = urllib.parse.urlsplit(c.postgres)
    proxy = StallingProxy(url.port)
    try:
        c.shared[0] = c.shared[0].replace(f":{url.port}/", f":{proxy.port}/")
        api = c.api("behind").wait_ready()
        client = Client(api.port)
        body = {"language": "bash", "code": "echo"}
        assert client.post("/submit", body).status == 201
        proxy.stalled.set()
        time.sleep(6)  # the limits are not known any more
        answers = []
        thread = threading.Thread(target=lambda: answers.append(client.post("/submit", body, timeout=60)))
        thread.start()

        def named():
            answer = api.get("/readyz")
            return answer.status == 503 and f"127.0.0.1:{proxy.port}" in answer.json["detail"]
        wait_until(named, 12, what="/readyz names the silent server")
        thread.join()
        assert answers[0].status == 503 and answers[0].json["code"] == "unavailable", answers
        assert "limits" in answers[0].json["detail"]
        wait_until(lambda: '"out of use","part":"store"' in api.log_text(), what="the log says so")
        proxy.stalled.clear()
        wait_until(lambda: api.get("/readyz").status == 200, 60, what="ready again")
        wait_until(lambda: '"in use","part":"store"' in api.log_text(), what="the log says so")
        assert client.post("/submit", body).status == 201
    finally:
        proxy.close()
