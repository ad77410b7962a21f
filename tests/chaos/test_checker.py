# SPDX-License-Identifier: Apache-2.0
"""The checker finds each kind of violation, and nothing where there is none."""

import copy

import pytest

from checker import Submission, World, check


def good():
    result = {"status": "done", "attempt": 1, "stdout": "a\n", "outcome": "ok"}
    second = {"status": "cancelled", "attempt": 0}
    return World(
        submissions=[
            Submission("one", ("done",), {"stdout": "a\n", "outcome": "ok"}, ["1", "1"]),
            Submission("two", ("done", "cancelled"), {"stdout": "b\n"}, ["2"]),
            Submission("three", ("done",), {}, [], unknown=True),
        ],
        seen={"1": ["queued", "queued", "running", "queued", "running", "done", "done"],
              "2": ["queued", "cancelled"]},
        results={"1": result, "2": second}, again={"1": dict(result), "2": dict(second)},
        rows={"1": [("done", 1)], "2": [("cancelled", 0)]}, tasks={"1", "2"})


def test_nothing_is_found_where_nothing_is_wrong():
    assert check(good()) == []
    w = good()  # one whose answer was lost may be there
    w.tasks.add("9")
    w.rows["9"] = [("done", 2)]
    assert check(w) == []


def lose_result(w):
    w.results.pop("1")


def lose_row(w):
    w.rows.pop("1")


def lose_task(w):
    w.tasks.remove("1")
    w.rows.pop("1")


def two_ids(w):
    w.submissions[0].accepted.append("2")


def never_accepted(w):
    w.submissions[2].unknown = False


def other_output(w):
    w.results["1"]["stdout"] = w.again["1"]["stdout"] = "b\n"


def other_state(w):
    for reading in (w.results, w.again):
        reading["1"]["status"] = "failed"
    w.rows["1"] = [("failed", 1)]


def other_result_later(w):
    w.again["1"]["stdout"] = "z\n"


def two_rows(w):
    w.rows["1"].append(("done", 2))


def other_attempt_in_store(w):
    w.rows["1"] = [("done", 2)]


def too_many_attempts(w):
    w.rows["2"] = [("cancelled", 4)]
    w.results["2"]["attempt"] = w.again["2"]["attempt"] = 4


def done_without_attempt(w):
    w.rows["1"] = [("done", 0)]
    w.results["1"]["attempt"] = w.again["1"]["attempt"] = 0


def final_moved(w):
    w.seen["1"].append("running")


def final_to_final(w):
    w.seen["2"].append("done")


def stranger(w):
    for i in ("8", "9"):
        w.tasks.add(i)
        w.rows[i] = [("done", 1)]


def row_without_task(w):
    w.rows["7"] = [("done", 1)]


def left(name):
    def plant(w):
        setattr(w, name, 1)
    plant.__name__ = f"left_{name}"
    return plant


@pytest.mark.parametrize("plant,kind", [
    (lose_result, "lost"), (lose_row, "lost"), (lose_task, "lost"), (two_ids, "doubled"),
    (never_accepted, "refused"), (other_output, "wrong"), (other_state, "wrong"),
    (other_result_later, "changed"), (two_rows, "twice"), (other_attempt_in_store, "changed"),
    (too_many_attempts, "attempts"), (done_without_attempt, "attempts"), (final_moved, "moved"),
    (final_to_final, "moved"), (stranger, "stranger"), (row_without_task, "stranger"),
    (left("live"), "left"), (left("outbox"), "left"), (left("queued"), "left"), (left("dead"), "left"),
], ids=lambda p: getattr(p, "__name__", p))
def test_planted_violation_is_found(plant, kind):
    w = copy.deepcopy(good())
    plant(w)
    assert kind in {k for k, _ in check(w)}
