# SPDX-License-Identifier: Apache-2.0
"""What several files of these tests share."""

import os
import tempfile

import pytest

from cluster import Cluster


@pytest.fixture
def make_cluster():
    """As root the processes become others, who must reach the folder."""
    with tempfile.TemporaryDirectory(prefix="kiln-roles-") as directory:
        os.chmod(directory, 0o755)
        made = []

        def make(**kw):
            made.append(Cluster(directory, **kw))
            return made[-1]
        yield make
        for one in made:
            one.close()
