# SPDX-License-Identifier: Apache-2.0
"""A load of mixed tasks goes on while parts of a cluster stand still, die, or lose each other. In the end every task that was
accepted has one result, and the right one."""

import os
import shutil
import tempfile

import pytest

import faults
from cluster import URLS
from conftest import run_under_load
from harness import wait_until
from load import Load, assert_right, sql

pytestmark = pytest.mark.skipif(any(u not in os.environ for u in URLS),
                                reason="needs the servers of tools/stack.sh")


def results(cluster):
    return int(sql(cluster, "SELECT count(*) FROM result")[0][0])


def assert_attempts(cluster, most):
    found = sql(cluster, f"SELECT count(*) FROM result WHERE attempt > {most}")
    assert found == [["0"]], f"{found} tasks took more than {most} attempts"


@pytest.mark.parametrize("kind", ["apis", "schedulers", "runners"])
def test_stopped_process(cluster, run, kind):
    run(faults.stop_process, getattr(cluster, kind)[0])


@pytest.mark.parametrize("name", faults.SERVERS)
def test_killed_server(run, name):
    run(faults.kill_server, name)


@pytest.mark.parametrize("name", faults.SERVERS)
def test_stopped_server(run, name):
    run(faults.stop_server, name)


@pytest.mark.parametrize("fault", faults.CUTS, ids=lambda f: f.__name__)
def test_cut_slow_or_emptied(cluster, run, fault):
    run(fault, cluster)


@pytest.fixture(name="three_nodes", scope="class")
def rabbitmq_of_three_nodes():
    with faults.three_nodes():
        yield


@pytest.mark.usefixtures("three_nodes")  # for all of them: to start two takes longer than to lose one
class TestThreeNodes:
    """A queue has a majority left: the load goes on without a node, whichever leads."""

    @pytest.mark.parametrize("node", faults.NODES)
    def test_lost_node(self, make_cluster, node):
        cluster = make_cluster()
        load = Load(cluster)
        try:
            load.grow(40)
            faults.stack("kill", node)
            done = results(cluster)
            load.grow(100)
            wait_until(lambda: results(cluster) >= done + 80, 60, what="results without the node")
            faults.stack("up", node)
            faults.ready_again(cluster)
            load.grow(40)
        finally:
            load.end.set()
        assert_right(cluster, load)


@pytest.mark.parametrize("name", ["scheduler0", "api0"])
def test_clock_that_is_stepped(make_cluster, name):
    """An hour and half a minute, both ways: leases and deadlines go by the database's clock."""
    directory = tempfile.mkdtemp(prefix="kiln-chaos-clock-")
    os.chmod(directory, 0o755)  # read by the user that the process becomes
    path = os.path.join(directory, "clock")
    cluster = make_cluster(env={name: faults.clock_of_its_own(path)})
    process = next(p for p in cluster.processes if p.name == name)
    try:
        run_under_load(cluster, faults.clock_steps, process, path)
    finally:
        shutil.rmtree(directory)
    assert_attempts(cluster, 1)
