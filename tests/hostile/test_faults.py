# SPDX-License-Identifier: Apache-2.0
"""Single system calls of a running server's spawner, inits and tasks fail (tests/sandbox/tamper.h): what
was submitted ends right, perhaps after another try, or as failed with its reason. Each call by itself is
the matter of tests/sandbox/faults.c; here it is what becomes of such a failure further up."""

import os
import subprocess

import pytest

import harness

TAMPER = harness.program("tests/sandbox/tamper")
# Role, how many calls it makes for a task at most, and how many of them are left out each time.
ROLES = [("spawner", 90, 7), ("init", 105, 13), ("task", 27, 4), ("collector", 24, 6)]
C = ("c", "#include <stdio.h>\nint main(void) { puts(\"right\"); }")
PYTHON = ("python", "print('right')")


class Tamper:
    def __init__(self, pid, role, nth, error):
        self.process = subprocess.Popen([TAMPER, str(pid), role, str(nth), error], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline() == "ready\n"

    def end(self):
        """Whether the call was made."""
        return bool(self.process.communicate("", timeout=30)[0])


def spawner(server):
    table = harness.processes()
    return next(pid for pid in server.tree() if pid in table and table[pid][1] == "kiln-sandbox" and
                table[table[pid][0]][1] == "kiln-runner")


def complaint(task):
    if task["status"] == "failed":
        told = task["error"] and task["error"]["code"] and task["error"]["message"]
        return None if told else f"failed without a reason: {task}"
    if task["status"] == "done" and task["outcome"] == "ok" and task["stdout"] == "right\n":
        return None
    return f"{task['status']}, {task['outcome']}: {task['stdout']!r} {task['stderr']!r} {task['compile']}"


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="tamper knows the registers of x86-64 only")
def test_calls_that_fail_are_no_result(server):
    server.run(*C)
    pid = spawner(server)
    wrong, fired, failed, again, number = [], 0, 0, 0, 0
    for role, calls, step in ROLES:
        for nth in range(1, calls, step):
            error = ("ENOMEM", "EMFILE", "ENOSPC", "EAGAIN")[nth % 4]
            tamper = Tamper(pid, role, nth, error)
            number += 1  # not the same program twice, which would not be compiled
            ids = [server.submit(*PYTHON), server.submit(C[0], f"{C[1]} // {number}"), server.submit(*PYTHON)]
            tasks = [server.wait(i) for i in ids]
            fired += tamper.end()
            failed += sum(t["status"] == "failed" for t in tasks)
            again += sum(t["attempt"] > 1 for t in tasks)
            wrong += [f"{role}'s call {nth} with {error}: {w}" for w in map(complaint, tasks) if w]
    print(f"{fired} calls failed; of {3 * number} tasks {again} were run again, {failed} failed")
    assert not wrong, "\n".join(wrong)
    assert fired > number / 2 and again + failed > 0
    assert spawner(server) == pid, "the spawner had to be started again"
    assert server.run(*PYTHON)["stdout"] == "right\n"
