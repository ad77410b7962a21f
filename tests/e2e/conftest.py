# SPDX-License-Identifier: Apache-2.0
import itertools
import os
import resource
import shutil
import subprocess
import tempfile

import pytest

import harness


def pytest_configure(config):
    config.addinivalue_line("markers", "release_only: measures what a sanitizer distorts; "
                            "not collected on a sanitized build")
    for name in ("kiln", "kiln-runner", "kiln-sandbox"):
        if not os.access(harness.program(name), os.X_OK):
            pytest.exit(f"{harness.program(name)} is not there: \"make build\", or set KILN_BUILD", 2)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def pytest_collection_modifyitems(config, items):
    if not harness.SANITIZED:
        return
    out = [i for i in items if i.get_closest_marker("release_only")]
    items[:] = [i for i in items if i not in out]
    config.hook.pytest_deselected(items=out)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    if report.failed:
        for server in harness.servers:
            report.sections.append((f"log of {server.argv}", server.log_tail()))


@pytest.fixture(scope="session")
def scratch():
    """A folder that every user may pass through: servers run as several."""
    path = tempfile.mkdtemp(prefix="kiln-e2e-")
    os.chmod(path, 0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


_numbers = itertools.count(1)


def new_directory(scratch):
    path = os.path.join(scratch, str(next(_numbers)))
    os.mkdir(path, 0o755)
    return path


@pytest.fixture(scope="session")
def shared_server(scratch):
    server = harness.Server(new_directory(scratch), slots=4).start()
    yield server
    server.close()


@pytest.fixture
def server(shared_server):
    """One server for all tests that leave it as they found it. A test that kills it fails, and the
    next gets a new one."""
    if shared_server.process.poll() is not None:
        shared_server.start()
    yield shared_server
    assert shared_server.process.poll() is None, "the server has died"
    assert shared_server.get("/healthz").status == 200


@pytest.fixture
def make_server(scratch):
    """make_server(config={...}, slots=1, ...) starts a server of the test's own."""
    made = []

    def make(start=True, **kw):
        server = harness.Server(new_directory(scratch), **kw)
        made.append(server)
        return server.start() if start else server
    yield make
    for server in made:
        if server in harness.servers:
            server.close()


@pytest.fixture
def cli(scratch):
    """Runs the kiln program; returns the finished process with its texts."""
    def run(*args, server=None, input=None, env=None, timeout=None):
        argv = [harness.program("kiln"), *args]
        environment = harness.clean_env({"HOME": scratch})
        if server is not None:
            environment["KILN_SERVER"] = f"http://127.0.0.1:{server.port}"
        return subprocess.run(argv, env=environment | (env or {}), input=input or "", text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False,
                              timeout=timeout or harness.PATIENCE, cwd=scratch)
    return run
