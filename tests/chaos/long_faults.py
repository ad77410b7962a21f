# SPDX-License-Identifier: Apache-2.0
"""A load of mixed tasks goes on while parts of a cluster stand still, die, or lose each other. In the end every task that was
accepted has one result, and the right one."""

import os

import pytest

import faults
from cluster import URLS

pytestmark = pytest.mark.skipif(any(u not in os.environ for u in URLS),
                                reason="needs the servers of tools/stack.sh")


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
