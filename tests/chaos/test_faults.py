# SPDX-License-Identifier: Apache-2.0
"""A load of mixed tasks goes on while processes of a cluster are killed. In the end every task that was
accepted has one result, and the right one."""

import os

import pytest

import faults
from cluster import URLS

pytestmark = pytest.mark.skipif(any(u not in os.environ for u in URLS),
                                reason="needs the servers of tools/stack.sh")


@pytest.mark.parametrize("kind", ["apis", "schedulers", "runners"])
def test_killed_process(cluster, run, kind):
    run(lambda: [faults.kill_process(p) for p in getattr(cluster, kind)])
