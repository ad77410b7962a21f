# SPDX-License-Identifier: Apache-2.0
"""openapi.yaml is the contract: what it promises is held against the real server, with inputs that
schemathesis makes up from it, good ones and bad ones. Seeded and bounded: the same each time."""

import os
import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
import harness  # noqa: E402  (found by the line above)

SEED, EXAMPLES, SECONDS = 20, 60, 45


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    directory = tmp_path_factory.mktemp("contract")
    for path in (directory, *directory.parents[:2]):
        os.chmod(path, 0o755)
    # Tasks that are made up should not hold up the run.
    server = harness.Server(directory, slots=4, config={
        "queue_max": 100000, "limits": {"cpu_ms": "500ms", "wall_ms": "1s"},
        "compile_limits": {"cpu_ms": "2s", "wall_ms": "2s"}}).start()
    yield server
    server.close()


def test_served_contract_is_the_file_of_the_repository(server):
    served = server.get("/openapi.json").json
    with open(os.path.join(harness.ROOT, "openapi.yaml"), encoding="utf-8") as f:
        text = f.read()
    for path in served["paths"]:
        assert f"  {path}:" in text, path
    assert text.count("\n  /") == len(served["paths"])


def test_server_keeps_the_contract(server, tmp_path):
    report = tmp_path / "junit.xml"
    done = subprocess.run(
        [os.path.join(os.path.dirname(sys.executable), "schemathesis"), "--config-file",
         os.path.join(os.path.dirname(os.path.abspath(__file__)), "schemathesis.toml"), "run",
         f"http://127.0.0.1:{server.port}/openapi.json", "--phases", "examples,coverage,fuzzing",
         "--seed", str(SEED), "--max-examples", str(EXAMPLES), "--max-time", str(SECONDS),
         "--generation-database", "none", "--no-color", "--continue-on-failure",
         "--report-junit-path", str(report)],
        cwd=tmp_path, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, check=False)
    assert done.returncode == 0, done.stdout[-12000:]
    cases = list(ET.parse(report).getroot().iter("testcase"))
    assert len(cases) >= 8, done.stdout[-3000:]
    assert server.run("bash", "echo on")["stdout"] == "on\n"
