# SPDX-License-Identifier: Apache-2.0
"""Says what went wrong in a history of submissions, given what clients saw and what the store has.

It knows no server: its input is plain data, so that it can be tested against planted violations.
"""

from dataclasses import dataclass, field

FINAL = ("done", "cancelled", "expired", "failed")
# What a client may see next after each state; the same state may be seen any number of times, and
# states that pass quickly may not be seen at all.
MOVES = {
    "queued": {"running", *FINAL},
    "running": {"queued", *FINAL},
    **{state: set() for state in FINAL},
}
ATTEMPTS_MAX = 3


@dataclass
class Submission:
    """One intent of a client: everything that was sent under one idempotency key."""
    key: str
    statuses: tuple  # the final states that would be right
    fields: dict     # of the result, where it is "done"
    accepted: list = field(default_factory=list)  # the id of each 200 or 201, in order
    unknown: bool = False  # the client gave up without an answer: it may be there or not


@dataclass
class World:
    """What is there when everything has come to rest."""
    submissions: list
    seen: dict     # id: states in the order in which one client saw them
    results: dict  # id: the result as first read when final
    again: dict    # id: the result as read at the very end
    rows: dict     # id: [(state, attempt)], rows of results in the store
    tasks: set     # ids of tasks in the store
    live: int = 0
    outbox: int = 0
    queued: int = 0  # messages left in the queues
    dead: int = 0    # messages left among the dead letters
    others: set = field(default_factory=set)  # tasks that are not the load's


def check(world):
    """All violations, as (kind, text)."""
    found = []
    for part in (_accepted, _moves, _rows, _strangers, _rest):
        found += part(world)
    return found


def _accepted(w):
    for s in w.submissions:
        ids = set(s.accepted)
        if len(ids) > 1:
            yield "doubled", f"{s.key} was accepted as {sorted(ids)}"
        if not ids and not s.unknown:
            yield "refused", f"{s.key} was never accepted, though the client did not give up"
        for task_id in ids:
            yield from _result(w, s, task_id)


def _result(w, s, task_id):
    result = w.results.get(task_id)
    if task_id not in w.tasks:
        yield "lost", f"{task_id} was accepted and is not in the store"
    if result is None or result["status"] not in FINAL:
        yield "lost", f"{task_id} was accepted and has no result"
        return
    if result["status"] not in s.statuses:
        yield "wrong", f"{task_id} ended {result['status']}, not {' or '.join(s.statuses)}: {result}"
    elif result["status"] == "done":
        for name, value in s.fields.items():
            if result.get(name) != value:
                yield "wrong", f"{task_id} has {name} {result.get(name)!r}, not {value!r}: {result}"
    if w.again.get(task_id) != result:
        yield "changed", f"{task_id} was {result}, and is {w.again.get(task_id)}"


def _moves(w):
    for task_id, states in w.seen.items():
        for before, after in zip(states, states[1:]):
            if before != after and after not in MOVES[before]:
                yield "moved", f"{task_id} went from {before} to {after}"


def _rows(w):
    for task_id, rows in w.rows.items():
        if len(rows) != 1:
            yield "twice", f"{task_id} has {len(rows)} results: {rows}"
        for state, attempt in rows:
            if not 0 <= attempt <= ATTEMPTS_MAX or (state == "done" and attempt == 0):
                yield "attempts", f"{task_id} ended {state} in attempt {attempt}"
            seen = w.results.get(task_id)
            if seen and (seen["status"], seen["attempt"]) != (state, attempt):
                yield "changed", f"{task_id} is {state} in attempt {attempt} in the store, and {seen}"


def _strangers(w):
    known = {i for s in w.submissions for i in s.accepted}
    strangers = w.tasks - known - w.others
    if len(strangers) > sum(s.unknown for s in w.submissions):
        yield "stranger", f"nobody was told of {sorted(strangers)}"
    for task_id in w.tasks - w.rows.keys():
        yield "lost", f"{task_id} is in the store without a result"
    for task_id in w.rows.keys() - w.tasks:
        yield "stranger", f"a result without a task: {task_id}"


def _rest(w):
    for name in ("live", "outbox", "queued", "dead"):
        if getattr(w, name):
            yield "left", f"{getattr(w, name)} left in {name}"
