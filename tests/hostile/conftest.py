# SPDX-License-Identifier: Apache-2.0
import os
import shutil
import sys
import tempfile

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "e2e"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import harness  # noqa: E402

from attack import MARK  # noqa: E402
import census  # noqa: E402


@pytest.fixture(name="server", scope="session")
def hostile_server():
    path = tempfile.mkdtemp(prefix=f"{MARK}-test-")
    os.chmod(path, 0o755)
    config = {"sandbox": {"uid_base": census.UID_BASE}} if os.getuid() == 0 else {}
    # With interpreters that stand by, and so with what they are made of.
    setup = os.environ.get("KILN_TEST_SETUP_DIR", os.path.join(path, "setup"))
    env = {"KILN_SETUP_DIR": setup, "KILN_STANDBY_BYTES": "256MiB"}
    server = harness.Server(path, slots=4, config=config, env=env)
    try:
        server.start()
        harness.wait_until(lambda: not census.is_making(server), 300, what="end of the making beforehand")
        yield server
    finally:
        server.close()
        shutil.rmtree(path, ignore_errors=True)
