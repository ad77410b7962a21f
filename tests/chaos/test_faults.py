# SPDX-License-Identifier: Apache-2.0
"""A load of mixed tasks goes on while parts of a cluster die, stand still, or lose each other. In the
end every task that was accepted has one result, and the right one."""

import os
import tempfile

import pytest

import faults
from cluster import URLS, Cluster
from load import Load, assert_right

pytestmark = pytest.mark.skipif(any(u not in os.environ for u in URLS),
                                reason="needs the servers of tools/stack.sh")


@pytest.fixture(name="cluster")
def make_cluster():
    """As root the processes become others, who must reach the folder."""
    with tempfile.TemporaryDirectory(prefix="kiln-chaos-") as directory:
        os.chmod(directory, 0o755)
        cluster = Cluster(directory, config=["--lease-ms=3s"]).wait_ready()
        yield cluster
        cluster.close()


def run(cluster, fault, *args):
    load = Load(cluster)
    load.grow(40)
    fault(*args)
    faults.ready_again(cluster)
    load.grow(40)
    assert_right(cluster, load)


@pytest.mark.parametrize("kind", ["apis", "schedulers", "runners"])
def test_killed_process(cluster, kind):
    run(cluster, lambda: [faults.kill_process(p) for p in getattr(cluster, kind)])


@pytest.mark.parametrize("kind", ["apis", "schedulers", "runners"])
def test_stopped_process(cluster, kind):
    run(cluster, faults.stop_process, getattr(cluster, kind)[0])


@pytest.mark.parametrize("name", faults.SERVERS)
def test_killed_server(cluster, name):
    run(cluster, faults.kill_server, name)


@pytest.mark.parametrize("name", faults.SERVERS)
def test_stopped_server(cluster, name):
    run(cluster, faults.stop_server, name)


@pytest.mark.parametrize("fault", faults.CUTS, ids=lambda f: f.__name__)
def test_cut_slow_or_emptied(cluster, fault):
    run(cluster, fault, cluster)
