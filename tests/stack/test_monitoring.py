# SPDX-License-Identifier: Apache-2.0
"""What deploy/prometheus and deploy/grafana say, against a real Prometheus that scrapes a Kiln with
tasks of all kinds."""

import glob
import json
import os
import re
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.parse
import urllib.request

import pytest

import cluster
from cluster import Cluster
from harness import NOBODY, ROOT, free_port, wait_until

pytestmark = pytest.mark.skipif(any(u not in os.environ for u in cluster.URLS),
                                reason="needs the servers of tools/stack.sh")
PROMETHEUS = os.path.join(ROOT, "deploy", "prometheus")
DASHBOARDS = sorted(glob.glob(os.path.join(ROOT, "deploy", "grafana", "dashboards", "*.json")))


def promtool(*args, **kw):
    done = subprocess.run(["promtool", *args], cwd=PROMETHEUS, text=True, check=False, timeout=180,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **kw)
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.parametrize("args", [["check", "config", "prometheus.yml"], ["check", "rules", "rules.yml"],
                                  ["test", "rules", "rules_test.yml"]], ids=" ".join)
def test_promtool_finds_nothing_wrong(args):
    promtool(*args)


def test_every_alert_has_its_place_in_the_manual():
    """And nothing there is about one that does not exist."""
    with open(os.path.join(ROOT, "docs", "OPERATIONS.md"), encoding="utf-8") as f:
        text = f.read()
    entries = dict(re.findall(r"(?m)^### (Kiln\w+)\n((?:.+\n)+)", text))
    with open(os.path.join(PROMETHEUS, "rules.yml"), encoding="utf-8") as f:
        alerts = dict(re.findall(r"- alert: (\w+)\n(?s:.*?)runbook: docs/OPERATIONS\.md#(\S+)", f.read()))
    assert len(alerts) >= 15 and set(alerts) == set(entries)
    assert all(anchor == name.lower() for name, anchor in alerts.items())
    assert all(len(entry) > 40 for entry in entries.values())


class Prometheus:
    def __init__(self, targets):
        self.directory = tempfile.mkdtemp(prefix="kiln-prometheus-")
        self.port = free_port()
        path = os.path.join(self.directory, "prometheus.yml")
        with open(path, "w", encoding="utf-8") as f:
            json.dump({"global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
                       "rule_files": [os.path.join(self.directory, "rules.yml")],
                       "scrape_configs": [{"job_name": job, "static_configs": [{"targets": [target]}]}
                                          for job, target in targets]}, f)
        shutil.copy(os.path.join(PROMETHEUS, "rules.yml"), self.directory)
        kw = {}
        if os.geteuid() == 0:
            os.chmod(self.directory, 0o755)
            os.mkdir(os.path.join(self.directory, "data"))
            os.chown(os.path.join(self.directory, "data"), NOBODY, NOBODY)
            kw = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        with open(os.path.join(self.directory, "log"), "wb") as log:
            self.process = subprocess.Popen(
                ["prometheus", f"--config.file={path}", "--storage.tsdb.path=data",
                 f"--web.listen-address=127.0.0.1:{self.port}"], cwd=self.directory, stdout=log,
                stderr=log, stdin=subprocess.DEVNULL, **kw)

    def query(self, text):
        url = f"http://127.0.0.1:{self.port}/api/v1/query?" + urllib.parse.urlencode({"query": text})
        try:
            with urllib.request.urlopen(url, timeout=20) as answer:
                return json.load(answer)["data"]["result"]
        except urllib.error.HTTPError as e:
            raise AssertionError(f"{text}: {e.read()}") from e

    def up(self):
        try:
            return len(self.query("up == 1"))
        except (OSError, AssertionError):  # it answers 503 while it starts
            assert self.process.poll() is None, "prometheus has ended"
            return 0

    def close(self):
        self.process.terminate()
        self.process.wait(30)
        shutil.rmtree(self.directory, ignore_errors=True)


@pytest.fixture(scope="module", name="loaded")
def scraped_load():
    """Tasks of all kinds went through a cluster while it was scraped."""
    with tempfile.TemporaryDirectory(prefix="kiln-monitor-") as directory:
        os.chmod(directory, 0o755)
        c = Cluster(directory, apis=1, schedulers=1, runners=1)
        server = None
        try:
            c.wait_ready()
            targets = [("kiln-api", f"127.0.0.1:{c.apis[0].port}"),
                       ("kiln-scheduler", f"127.0.0.1:{c.schedulers[0].port}")]
            server = Prometheus(targets)
            wait_until(lambda: server.up() == 2, what="both are scraped")
            client = c.client()
            for i in range(3):
                client.run("bash", f"echo {i}")
                client.run("c", "int main(void) { return 0; }", priority="high")
                client.run("bash", "exit 3")
                client.run("c", f"int main(void) {{ return {'x' * (i + 1)}; }}")
                client.run("bash", "sleep 9", limits={"wall_ms": 200})
                client.get("/languages")
            wait_until(lambda: server.query("sum(kiln_tasks_finished_total) == 15"),
                       what="all are scraped")
            # A rate needs two scrapes of each process.
            rates = [f"sum(rate({name}[1m])) > 0" for name in (
                "kiln_tasks_finished_total", "kiln_tasks_accepted_total", "kiln_queue_published_total",
                "kiln_http_request_duration_seconds_count")]
            wait_until(lambda: client.run("bash", "echo more") and all(map(server.query, rates)),
                       what="rates")
            yield c, server
        finally:
            if server:
                server.close()
            c.close()


@pytest.mark.parametrize("path", DASHBOARDS, ids=os.path.basename)
def test_every_query_of_a_dashboard_has_an_answer(loaded, path):
    _, server = loaded
    with open(path, encoding="utf-8") as f:
        board = json.load(f)
    assert board["uid"] == os.path.basename(path)[:-5]
    assert board["templating"]["list"][0]["type"] == "datasource"
    empty = []
    for panel in board["panels"]:
        for target in panel["targets"]:
            text = target["expr"].replace("$__rate_interval", "1m")
            if not server.query(text):
                empty.append((panel["title"], text))
    assert not empty, empty


@pytest.mark.parametrize("role", ["apis", "schedulers"])
def test_metrics_are_as_promtool_wants_them(loaded, role):
    c, _ = loaded
    text = getattr(c, role)[0].get("/metrics").body.decode()
    promtool("check", "metrics", input=text)


def test_no_alert_fires_while_all_is_well(loaded):
    _, server = loaded
    assert server.query('ALERTS{alertstate="firing"}') == []
