# SPDX-License-Identifier: Apache-2.0
"""What the project wants of each program, on the machine at hand, beside the bare program there."""

TAIL_TIMES = 4  # p99 at sixteen clients, of p50 there


def sixteen(r):
    return next(c for c in r["closed"] if c["clients"] == 16)


def cpu_times(r):
    return sixteen(r)["cpu_ms"] / r["floor"]["cpu_ms"]


def paced_times(r):
    return r["paced"]["p50_ms"] / r["floor"]["p50_ms"]


def bare_share(r):
    return max(c["rps"] for c in r["closed"]) / r["floor"]["rps_all"]


# What is read of a program's measurements: words, unit, sign, how, and how many times bare that is.
MEASURES = {
    "p50": ("paced, p50", "ms", "<=", lambda r: r["paced"]["p50_ms"], paced_times),
    "p99": ("paced, p99", "ms", "<=", lambda r: r["paced"]["p99_ms"], None),
    "rate": ("16 clients", "/s", ">=", lambda r: sixteen(r)["rps"], None),
    "cpu": ("16 clients, CPU", "ms", "<=", lambda r: sixteen(r)["cpu_ms"], cpu_times),
    "bare": ("best rate of the bare one's", "times", ">=", bare_share, None),
    "tail": ("16 clients, p99 over p50", "times", "<=",
             lambda r: sixteen(r)["p99_ms"] / sixteen(r)["p50_ms"], None),
}

TARGETS = [
    ("c", {"p50": 1.3, "p99": 4, "rate": 1000, "cpu": 1.6, "tail": TAIL_TIMES}),
    ("python", {"p50": 2.2, "p99": 6, "rate": 650, "cpu": 2.8, "tail": TAIL_TIMES}),
    ("python-imports", {"p50": 2.8, "rate": 500, "tail": TAIL_TIMES}),
    ("javascript", {"p50": 8, "bare": 0.85, "tail": TAIL_TIMES}),
    ("java", {"p50": 12, "rate": 20, "tail": TAIL_TIMES}),
    ("c-unseen", {"p50": 32, "rate": 55}),
    ("cpp-unseen", {"p50": 240}),
    ("java-unseen", {"p50": 45, "rate": 4.5}),
]


def figures(results, targets=None):
    """Of the programs that were measured."""
    by_key = {r["key"]: r for r in results}
    for key, wanted in targets or TARGETS:
        for measure, target in wanted.items() if key in by_key else ():
            words, unit, sign, how, times = MEASURES[measure]
            r = by_key[key]
            yield (f"{r['title']}, {words}", how(r), unit, sign, target,
                   *([times(r)] if times and (measure != "cpu" or r["floor"].get("cpu_ms")) else []))
