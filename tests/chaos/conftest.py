# SPDX-License-Identifier: Apache-2.0
import os
import sys
import tempfile

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from load import Load, assert_right  # noqa: E402

from cluster import Cluster  # noqa: E402
import faults  # noqa: E402


@pytest.fixture(name="make_cluster")
def cluster_maker():
    """As root the processes become others, who must reach the folder."""
    made = []

    def make(**kw):
        directory = tempfile.TemporaryDirectory(prefix="kiln-chaos-")
        os.chmod(directory.name, 0o755)
        made.append((directory, Cluster(directory.name, config=["--lease-ms=3s"], **kw)))
        return made[-1][1].wait_ready()
    yield make
    for directory, cluster in made:
        with directory:
            cluster.close()


@pytest.fixture(name="cluster")
def ordinary_cluster(make_cluster):
    return make_cluster()


def run_under_load(cluster, fault, *args):
    """Has a fault happen under a load, and looks at everything afterwards."""
    load = Load(cluster)
    try:
        load.grow(40)
        fault(*args)
        faults.ready_again(cluster)
        load.grow(40)
    finally:
        load.end.set()
    assert_right(cluster, load)


@pytest.fixture(name="run")
def run_fault(cluster):
    return lambda fault, *args: run_under_load(cluster, fault, *args)
