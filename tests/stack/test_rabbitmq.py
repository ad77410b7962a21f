# SPDX-License-Identifier: Apache-2.0
"""A load over the queue (queue_load.c) while its RabbitMQ suffers. The broker is this file's own."""

import json
import os
import signal
import subprocess
import tempfile
import time

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.abspath(os.environ.get("KILN_BUILD", os.path.join(ROOT, "build-asan")))
LOAD = os.path.join(BUILD, "tests", "stack", "queue-load")
PORT = int(os.environ.get("KILN_STACK_PORT", "27100")) + 200
PATIENCE = 120


class Broker:
    def __init__(self, directory):
        self.directory = directory
        self.env = os.environ | {"KILN_STACK_DIR": directory, "KILN_STACK_PORT": str(PORT)}
        self.up()

    def stack(self, *args, check=True):
        return subprocess.run([os.path.join(ROOT, "tools", "stack.sh"), *args], env=self.env,
                              check=check, stdout=subprocess.PIPE, text=True, timeout=PATIENCE).stdout

    def up(self):
        self.url = self.stack("up", "rabbitmq").strip().partition("=")[2]

    def ctl(self, *args):
        return self.stack("rabbitmqctl", *args)

    def pid(self):
        with open(os.path.join(self.directory, "rabbitmq.pid"), encoding="ascii") as f:
            return int(f.read().split()[0])


@pytest.fixture(scope="module")
def broker():
    with tempfile.TemporaryDirectory(prefix="kiln-stack-") as directory:
        os.chmod(directory, 0o755)
        one = Broker(directory)
        try:
            yield one
        finally:
            one.stack("down", "rabbitmq", check=False)


class Load:
    """One queue-load; end() lets it finish and gives its accounts."""

    def __init__(self, broker, prefix, window=64, per_second=300):
        url = f"{broker.url}?prefix={prefix}&heartbeat=5"
        self.process = subprocess.Popen([LOAD, url, "600", str(window), str(per_second)],
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        out, err = self.process.communicate(timeout=PATIENCE + 60)
        assert self.process.returncode in (0, 1), err
        accounts = json.loads(out)
        print(accounts, err)
        assert accounts["missing"] == 0, (accounts, err)
        return accounts


def test_nothing_confirmed_is_lost_when_the_broker_is_killed(broker):
    load = Load(broker, "killed", per_second=500)
    for _ in range(2):
        time.sleep(4)
        broker.stack("kill", "rabbitmq")
        time.sleep(0.5)
        broker.up()
    time.sleep(5)
    accounts = load.end()
    assert accounts["lost"] == 2 and accounts["back"] == 2
    assert accounts["confirmed"] > 500
    assert accounts["delivered"] >= accounts["confirmed"]
    # Who published while it was away was told so at once, and within seconds otherwise.
    assert accounts["failed"] > 0 and accounts["slowest_ms"] < 8000


def test_memory_alarm_is_told_quickly_and_gets_over(broker):
    load = Load(broker, "alarm")
    time.sleep(3)
    broker.ctl("set_vm_memory_high_watermark", "0.00001")
    try:
        time.sleep(6)
    finally:
        broker.ctl("set_vm_memory_high_watermark", "absolute", "1GB")
    time.sleep(4)
    accounts = load.end()
    assert accounts["failed"] > 50, "publishes must fail while the broker takes none"
    # At most one time-out was waited for; and it was no reason to give up the connection.
    assert accounts["slowest_ms"] < 8000
    assert accounts["lost"] == 0
    assert accounts["confirmed"] > 500


def test_deliveries_are_acknowledged_during_an_alarm(broker):
    """Those that publish are blocked, and only those."""
    load = Load(broker, "acks", window=16)
    time.sleep(3)
    broker.ctl("set_vm_memory_high_watermark", "0.00001")
    try:
        time.sleep(5)
        left = {name: (int(ready), int(unacked)) for name, ready, unacked in
                (line.split() for line in
                 broker.ctl("list_queues", "--silent", "name", "messages_ready",
                            "messages_unacknowledged").splitlines())}
    finally:
        broker.ctl("set_vm_memory_high_watermark", "absolute", "1GB")
    load.end()
    assert sum(sum(v) for k, v in left.items() if k.startswith("acks.python")) == 0, left


def test_stopped_broker_is_waited_for(broker):
    load = Load(broker, "stopped")
    time.sleep(3)
    os.kill(broker.pid(), signal.SIGSTOP)
    try:
        time.sleep(7)
    finally:
        os.kill(broker.pid(), signal.SIGCONT)
    time.sleep(4)
    accounts = load.end()
    assert accounts["confirmed"] > 500
    assert accounts["slowest_ms"] < 10000


def test_closed_connections_come_back(broker):
    load = Load(broker, "closed")
    for _ in range(3):
        time.sleep(2)
        broker.ctl("close_all_connections", "test")
    time.sleep(3)
    accounts = load.end()
    assert accounts["lost"] == 3 and accounts["back"] == 3
    assert accounts["confirmed"] > 1000
