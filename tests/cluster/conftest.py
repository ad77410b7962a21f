# SPDX-License-Identifier: Apache-2.0
import os
import sys
import tempfile

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from pod_cluster import LOAD_POOLS, NAMESPACE_FOLDER, PodCluster, kubectl  # noqa: E402

from cluster import URLS  # noqa: E402
from load import Load, assert_right, sql  # noqa: E402


def pytest_configure(config):
    config.addinivalue_line("markers", "long: not part of the short run that CI has")


@pytest.fixture(scope="session", name="namespace")
def bare_namespace():
    """With the rights, the walls and the bounds that an operator gives it, and no pools."""
    missing = [name for name in (*URLS, "KUBECONFIG") if name not in os.environ]
    if missing:
        pytest.skip(f"needs `make test-cluster`: not set: {', '.join(missing)}")
    kubectl("apply", "-k", NAMESPACE_FOLDER)
    kubectl("delete", "podtemplates", "--all")


@pytest.fixture(scope="session", name="cluster")
def pod_cluster(namespace):  # pylint: disable=unused-argument
    with tempfile.TemporaryDirectory(prefix="kiln-cluster-") as directory:
        os.chmod(directory, 0o755)  # as root the processes become others, who must reach it
        one = PodCluster(directory, apis=2, schedulers=2, config=["--lease-ms=3s"])
        try:
            yield one.wait_ready()
        finally:
            one.close()


@pytest.fixture(name="empty")
def empty_cluster(cluster):
    cluster.no_pods()
    return cluster


@pytest.fixture(name="pools")
def small_pools(cluster):
    """Pools for the load, with pods that are ready."""
    for pool in LOAD_POOLS:
        cluster.template(pool, min=2, max=4)
    for pool in LOAD_POOLS:
        cluster.until_ready(pool, 2)
    return LOAD_POOLS


@pytest.fixture(name="under_load")
def load_and_fault(cluster, pools):  # pylint: disable=unused-argument
    """Has a fault happen under a load. In the end every task that was accepted has one result, and
    the right one. The fault may return ids of tasks that it has submitted itself."""
    def run(fault):
        others = {row[0] for row in sql(cluster, "SELECT id FROM task")}
        load = Load(cluster, threads=4)
        try:
            load.grow(30)
            others.update(fault() or ())
            load.grow(30)
        finally:
            load.end.set()
        assert_right(cluster, load, others=others)
    return run
