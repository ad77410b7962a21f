# SPDX-License-Identifier: Apache-2.0
"""Hostile programs in interpreters that stood by: the census of the host is the same before and after, and the
next one of each language is as if there had been none."""

import pytest

import census
import harness
import standbys
from test_hostile import assert_equal, complaints, settled, warm

TRIES = 200
HOW = {"python": "fork", "ruby": "fork"}  # others: "exec"


def in_a_standby(server, one):
    """The result of one that an interpreter which stood by had run."""
    for _ in range(TRIES):
        task = server.wait(server.submit(one.language, one.code, limits=one.limits, args=list(one.args)), 120)
        if task["isolation"]["standby"] == HOW.get(one.language, "exec") or task["status"] != "done":
            return task
        harness.wait_until(lambda: one.language in census.standing().values(), what=f"a standby of {one.language}")
    raise AssertionError(f"none stood by for {one.name} in {TRIES} tries")


def run_twice(server, one):
    """The second time finds what the first left, if anything can; what runs until it is stopped does so once."""
    wrong = []
    for _ in range(1 if "time_limit" in one.outcome else 2):
        task = in_a_standby(server, one)
        wrong += [f"{one.name}: {w}" for w in complaints(one, task)]
        if task["outcome"] == "ok" and task["stdout"].count("end") != 1:
            wrong.append(f"{one.name}: did not end once: {task['stdout']!r}")
    return wrong


@pytest.mark.parametrize("language", ["python", "ruby", "javascript", "java"])
def test_attacks_on_standbys(server, language):
    warm(server)
    before = settled(server)
    wrong = [w for one in standbys.ATTACKS if one.language == language for w in run_twice(server, one)]
    assert not wrong, "\n".join(wrong)
    assert_equal(server, before)


def test_waiting_ones_are_left_alone(server):
    """By whoever kills all that he can reach, from within one of them."""
    one = next(a for a in standbys.ATTACKS if a.name == "standby-js-kills-all")
    in_a_standby(server, one)
    harness.wait_until(lambda: "java" in census.standing().values() or
                       server.run("java", standbys.java(""), limits=standbys.STANDBY) and False, every=0.2,
                       what="a standby of another language")
    waiting = {p for p, language in census.standing().items() if language == "java"}
    for _ in range(3):
        assert not complaints(one, in_a_standby(server, one))
    assert waiting <= set(census.standing())


def test_builds_cannot_be_poisoned(server):
    one = next(a for a in standbys.ATTACKS if a.name == "standby-java-poisons-build")
    tasks = [in_a_standby(server, one) for _ in range(3)]
    assert all(t["compile"]["cached"] for t in tasks[1:]), tasks
    assert {t["stdout"] for t in tasks} == {"end\n"}, tasks
