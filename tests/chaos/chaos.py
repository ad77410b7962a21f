#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The faults of test_faults.py in random order under one load, for as long as is wanted.

    tests/chaos/chaos.py [--minutes N] [--seed N]

Needs the servers of tools/stack.sh and its environment: `make chaos` starts them. RabbitMQ gets two
further nodes for the time.
"""

import argparse
import os
import random
import secrets
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
os.environ.setdefault("KILN_CHAOS_STOP_SECONDS", "30")  # longer than leases, heartbeats and time-outs

import faults  # noqa: E402
from cluster import Cluster  # noqa: E402
from load import Load, assert_right  # noqa: E402


def choices(cluster):
    """Every fault, by name."""
    found = {f.__name__: (f, (cluster,)) for f in faults.CUTS}
    for process in cluster.processes:
        found[f"kill {process.name}"] = (faults.kill_process, (process,))
        found[f"stop {process.name}"] = (faults.stop_process, (process,))
    for name in sorted({*faults.SERVERS, *faults.NODES}):
        found[f"kill {name}"] = (faults.kill_server, (name,))
        found[f"stop {name}"] = (faults.stop_server, (name,))
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=secrets.randbits(32))
    args = parser.parse_args()
    order = random.Random(args.seed)
    print(f"seed {args.seed}", flush=True)
    with faults.three_nodes(), tempfile.TemporaryDirectory(prefix="kiln-chaos-") as directory:
        os.chmod(directory, 0o755)
        cluster = Cluster(directory, config=["--lease-ms=3s"]).wait_ready()
        try:
            load, start = Load(cluster), time.monotonic()
            table = choices(cluster)
            while time.monotonic() - start < args.minutes * 60:
                name = order.choice(sorted(table))
                print(f"{time.monotonic() - start:7.1f} s  {load.count():6d} accepted  {name}", flush=True)
                fault, words = table[name]
                fault(*words)
                faults.ready_again(cluster)
                load.grow(20)
            assert_right(cluster, load, seconds=300)
        finally:
            cluster.close()
    print("every task that was accepted has one result, and the right one")


if __name__ == "__main__":
    main()
