# SPDX-License-Identifier: Apache-2.0
import os
import sys
import tempfile

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from load import Load, assert_right  # noqa: E402

from cluster import Cluster  # noqa: E402
import faults  # noqa: E402


@pytest.fixture(name="cluster")
def make_cluster():
    """As root the processes become others, who must reach the folder."""
    with tempfile.TemporaryDirectory(prefix="kiln-chaos-") as directory:
        os.chmod(directory, 0o755)
        cluster = Cluster(directory, config=["--lease-ms=3s"]).wait_ready()
        yield cluster
        cluster.close()


@pytest.fixture(name="run")
def run_fault(cluster):
    """Has a fault happen under a load, and looks at everything afterwards."""
    def run(fault, *args):
        load = Load(cluster)
        try:
            load.grow(40)
            fault(*args)
            faults.ready_again(cluster)
            load.grow(40)
        finally:
            load.end.set()
        assert_right(cluster, load)
    return run
