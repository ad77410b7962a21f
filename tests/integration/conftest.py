# SPDX-License-Identifier: Apache-2.0


def pytest_configure(config):
    config.addinivalue_line("markers", "long: left out by `make test`; pytest -m long tests/integration")
    config.addinivalue_line("markers", "alone: takes what the host has, so that nothing else can run beside")
