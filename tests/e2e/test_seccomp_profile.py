# SPDX-License-Identifier: Apache-2.0
"""deploy/kubernetes/seccomp/runner.json: a runtime's default, and no more than a sandbox needs.

The profile is put on a process without root, as a container's runtime would, and that process becomes
kiln-sandbox. (A static program, so that nothing but its own calls meets the filter.)"""

import json
import os
import shutil
import subprocess
import tempfile

import pytest

from harness import NOBODY, ROOT, program

PROFILE = os.path.join(ROOT, "deploy", "kubernetes", "seccomp", "runner.json")
OURS = "kiln-sandbox: "

# Run as "python3 -c THIS PROFILE WITHOUT PROGRAM ARGUMENT...": libseccomp is what runtimes use too.
CONFINE = """
import json, os, sys, seccomp
with open(sys.argv[1], encoding="utf-8") as f:
    profile = json.load(f)
without = sys.argv[2].split(",")
compare = {"SCMP_CMP_EQ": seccomp.EQ, "SCMP_CMP_LT": seccomp.LT, "SCMP_CMP_GT": seccomp.GT,
           "SCMP_CMP_MASKED_EQ": seccomp.MASKED_EQ}
def condition(a):
    more = [a["valueTwo"]] if "valueTwo" in a else []
    return seccomp.Arg(a["index"], compare[a["op"]], a["value"], *more)
actions = {"SCMP_ACT_ALLOW": seccomp.ALLOW}
policy = seccomp.SyscallFilter(seccomp.ERRNO(profile["defaultErrnoRet"]))
for row in profile["syscalls"]:
    for name in row["names"]:
        if name in without:
            continue
        try:
            policy.add_rule(actions[row["action"]], name, *[condition(a) for a in row.get("args", [])])
        except (RuntimeError, ValueError):
            pass  # newer than this library, or of another architecture: runtimes leave them out too
if os.geteuid() == 0:
    os.setgroups([])
    os.setresgid(*[int(sys.argv[3])] * 3)
    os.setresuid(*[int(sys.argv[3])] * 3)
policy.load()
os.execv(sys.argv[4], sys.argv[4:])
"""

# A sanitizer's own calls are none of the sandbox's.
pytestmark = pytest.mark.release_only


@pytest.fixture(scope="module")
def profile():
    with open(PROFILE, encoding="utf-8") as f:
        return json.load(f)


@pytest.fixture(scope="module")
def sandbox():
    """kiln-sandbox where everybody reaches it."""
    if subprocess.run(["/usr/bin/python3", "-c", "import seccomp"], check=False,
                      stderr=subprocess.DEVNULL).returncode:
        pytest.skip("python3-seccomp is not installed")
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield shutil.copy(program("kiln-sandbox"), folder)


def run_in_sandbox(sandbox, without=()):
    """The verdict on a small program, or the complaint of who could not run one."""
    done = subprocess.run(
        ["/usr/bin/python3", "-c", CONFINE, PROFILE, ",".join(without), str(NOBODY), sandbox, "run",
         "--", "/bin/sh", "-c", "read -r name </proc/self/comm && hostname=$(uname -n) && exit 7"],
        text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False, timeout=60)
    lines = [line for line in done.stdout.splitlines() + done.stderr.splitlines()
             if line.startswith("{")]
    return json.loads(lines[-1]) if lines else {"outcome": "none", "error": done.stderr}


def extra(profile):
    return sorted(n for row in profile["syscalls"] if row["comment"].startswith(OURS)
                  for n in row["names"])


def test_sandbox_is_whole_under_the_profile(sandbox):
    verdict = run_in_sandbox(sandbox)
    assert (verdict["outcome"], verdict["code"]) == ("exited", 7), verdict
    assert verdict["seccomp"] is True


def test_sandbox_cannot_be_made_under_the_default_alone(profile, sandbox):
    assert run_in_sandbox(sandbox, extra(profile))["outcome"] in ("none", "failed")


def test_every_call_beyond_the_default_is_needed(profile, sandbox):
    needless = [n for n in extra(profile) if run_in_sandbox(sandbox, [n])["outcome"] == "exited"]
    assert not needless
    assert len(extra(profile)) == 13


def test_profile_is_written_as_one(profile):
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO"
    rows = profile["syscalls"]
    assert all(r["action"] == "SCMP_ACT_ALLOW" for r in rows)
    assert all(r["comment"].startswith(("default", OURS)) for r in rows)
    plain = [n for r in rows if "args" not in r for n in r["names"]]
    assert len(plain) == len(set(plain))
    # What containers are kept from everywhere, and a sandbox has no use for.
    never = {"bpf", "kexec_load", "init_module", "finit_module", "keyctl", "add_key", "request_key",
             "perf_event_open", "open_by_handle_at", "userfaultfd", "io_uring_setup", "reboot",
             "swapon", "chroot", "syslog", "quotactl", "acct", "settimeofday"}
    assert not never & set(plain)
