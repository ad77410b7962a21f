# SPDX-License-Identifier: Apache-2.0
"""What is in deploy/ names what exists: keys, options, services, secrets, programs."""

import glob
import os
import re
import shutil
import subprocess

import pytest

from harness import BUILD, ROOT, program

yaml = pytest.importorskip("yaml")
COMPOSE = os.path.join(ROOT, "deploy", "compose.yaml")
UNITS = sorted(glob.glob(os.path.join(ROOT, "deploy", "systemd", "*.service.in")))


def known_keys(cli):
    text = cli("config", "--keys").stdout
    return {k.upper().replace(".", "_") for k in re.findall(r"(?m)^([a-z_.]+)", text)}


def runner_options():
    text = subprocess.run([program("kiln-runner"), "--help"], check=True, text=True,
                          stdout=subprocess.PIPE, timeout=30).stdout
    return set(re.findall(r"--[a-z-]+", text))


@pytest.fixture(scope="module")
def compose():
    with open(COMPOSE, encoding="utf-8") as f:
        return yaml.safe_load(f)


def test_compose_refers_to_what_is_there(compose):
    services = compose["services"]
    assert {"postgres", "rabbitmq", "redis", "migrate", "api1", "api2", "scheduler1", "scheduler2",
            "runner1"} == set(services)
    for name, one in services.items():
        assert one["image"].startswith(("${KILN_IMAGE:?", "postgres:", "rabbitmq:", "redis:")), name
        for other, how in one.get("depends_on", {}).items():
            wanted = "healthcheck" if how["condition"] == "service_healthy" else "image"
            assert wanted in services[other], (name, other)
        assert set(one.get("secrets", [])) <= set(compose["secrets"]), name
        named = {v.partition(":")[0] for v in one.get("volumes", [])}
        assert named <= set(compose["volumes"]), name
        assert name == "migrate" or one["healthcheck"]["test"][0] == "CMD", name
    used = {s for one in services.values() for s in one.get("secrets", [])}
    assert used == set(compose["secrets"])


def test_compose_uses_keys_and_options_that_exist(compose, cli):
    keys = known_keys(cli)
    for name, one in compose["services"].items():
        for variable in one.get("environment", {}):
            if variable.startswith("KILN_"):
                assert variable.removeprefix("KILN_") in keys, (name, variable)
        command = one.get("command", [])
        if command[:1] == ["kiln"]:
            assert cli("help", command[1]).returncode == 0, name
        if command[:1] == ["kiln-runner"]:
            assert {a.partition("=")[0] for a in command[1:]} <= runner_options(), name
    hosts = re.findall(r"@(\w+):|//(\w+):", str(compose["services"]["scheduler1"]["environment"]))
    assert {a or b for a, b in hosts} <= set(compose["services"]) | {"kiln"}


@pytest.mark.parametrize("path", UNITS, ids=os.path.basename)
def test_unit_is_one_for_systemd_and_uses_what_exists(path, cli, tmp_path):
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not installed")
    with open(path, encoding="utf-8") as f:
        text = f.read().replace("@BINDIR@", BUILD).replace("@DATADIR@", "/usr/share")
    assert "@" not in re.sub(r"(?m)^#.*$", "", text)
    for variable in re.findall(r"(?m)^Environment=KILN_(\w+)=", text):
        assert variable in known_keys(cli)
    command = re.search(r"(?m)^ExecStart=(.*)$", text)[1].split()
    assert os.access(command[0], os.X_OK)
    if command[0].endswith("/kiln"):
        assert cli("help", command[1]).returncode == 0
    else:
        assert {a for a in command[1:] if a.startswith("--")} <= runner_options()
    unit = tmp_path / os.path.basename(path).removesuffix(".in").replace("@.", "@one.")
    unit.write_text(text, encoding="utf-8")
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", str(unit)], text=True, check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60)
    ours = [line for line in done.stdout.splitlines() if unit.name in line]
    assert not ours, done.stdout
