# SPDX-License-Identifier: Apache-2.0
"""What hostile programs cost others: ordinary tasks beside them, and how late they are ended. The
programs are those of tests/hostile."""

import concurrent.futures
import os
import random
import statistics
import sys
import threading
import time

from measure import say
from servers import ROOT

sys.path.append(os.path.join(ROOT, "tests", "hostile"))
sys.path.append(os.path.join(ROOT, "tests", "e2e"))
import bombs  # noqa: E402
import escapes  # noqa: E402

ROUNDS = 4
AT_A_TIME = 3
MIB = 1 << 20

# (language, program, what it prints)
ORDINARY = [
    ("python", "print(sum(i * i for i in range(1000)))", "332833500\n"),
    ("bash", "s=0; for ((i = 0; i < 100; i++)); do s=$((s + i * i)); done; echo $s", "328350\n"),
    ("c", "#include <stdio.h>\nint main(void) { long s = 0; for (long i = 0; i < 1000; i++) s += i * i; "
          'printf("%ld\\n", s); }', "332833500\n"),
    ("javascript", "let s = 0; for (let i = 0; i < 1000; i++) s += i * i; console.log(s);", "332833500\n"),
]

# Each line says when it was written, on the host's own clock. The last that was kept is from when as much
# was written as is allowed, so what the task lived on is the time until it was stopped.
FLOOD = r"""#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
int main(int argc, char **argv)
{
	static char line[4096];
	(void)argv;
	for (;;) {
		struct timespec t;
		clock_gettime(CLOCK_MONOTONIC, &t);
		memset(line, ' ', sizeof line);
		line[snprintf(line, sizeof line, "%lld", t.tv_sec * 1000000000LL + t.tv_nsec)] = ' ';
		line[sizeof line - 1] = '\n';
		for (int fd = 1; fd <= argc; fd++)
			if (write(fd, line, sizeof line) < 0)
				return 1;
	}
}
"""


class Ordinary:
    """One client that submits one task after another while the context lasts."""

    def __init__(self, server, latencies, seconds=None):
        self.server, self.latencies, self.seconds = server, latencies, seconds
        self.over, self.wrong = threading.Event(), 0
        self.thread = threading.Thread(target=self.run)

    def one(self, number):
        language, code, says = ORDINARY[number % len(ORDINARY)]
        start = time.monotonic()
        status, told = self.server.request("POST", "/submit?wait=60", {
            "language": language, "code": code, "limits": {"wall_ms": 60000}})
        self.latencies[language].append((time.monotonic() - start) * 1000)
        if status != 200 or told["outcome"] != "ok" or told["stdout"] != says or told["attempt"] != 1:
            self.wrong += 1

    def run(self):
        number, end = 0, time.monotonic() + (self.seconds or 86400)
        while not self.over.is_set() and time.monotonic() < end:
            self.one(number)
            number += 1

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        if not self.seconds:
            self.over.set()
        self.thread.join()


def attack(server, one):
    body = {"language": one.language, "code": one.code, "limits": one.limits, "args": list(one.args),
            "stdin": one.stdin}
    status, told = server.request("POST", "/submit?wait=60", body)
    while status in (200, 202) and told["status"] not in ("done", "failed", "cancelled", "expired"):
        status, told = server.request("GET", f"/result/{told['task_id']}?wait=60")
    return told


def beside(bench, server):
    """Quiet and hostile minutes take turns: what else the machine does meanwhile falls on both."""
    attacks = bombs.ATTACKS + escapes.ATTACKS
    random.Random(1).shuffle(attacks)
    attacks = attacks[:max(ROUNDS, int(len(attacks) * bench.scale))]
    quiet, hostile = ({language: [] for language, _, _ in ORDINARY} for _ in range(2))
    late, wrong = [], 0
    with Ordinary(server, {k: [] for k in quiet}, 3):  # what is made once, is
        pass
    for turn in range(ROUNDS):
        with Ordinary(server, quiet, bench.seconds(10)) as run:
            pass
        wrong += run.wrong
        with Ordinary(server, hostile) as run, concurrent.futures.ThreadPoolExecutor(AT_A_TIME) as pool:
            for one, told in zip(attacks[turn::ROUNDS], pool.map(lambda a: attack(server, a),
                                                                  attacks[turn::ROUNDS])):
                if told["limit_hit"] in ("wall_ms", "cpu_ms") and told["outcome"] == "time_limit":
                    late.append(told["usage"][told["limit_hit"]] - one.limits[told["limit_hit"]])
        wrong += run.wrong
    return quiet, hostile, late, wrong, len(attacks)


def percentile(values, p):
    return sorted(values)[min(len(values) - 1, int(len(values) * p))]


def flood(server, streams):
    """Milliseconds from the byte that was too many to the end of the last process, its start included."""
    status, told = server.request("POST", "/submit?wait=60", {
        "language": "c", "code": FLOOD, "args": ["x"] * (streams - 1),
        "limits": {"output_bytes": MIB, "wall_ms": 10000, "cpu_ms": 9000}})
    if status != 200 or told["limit_hit"] != "output_bytes":
        sys.exit(f"a flood was not stopped as one: {told}")
    lines = told["stdout"].split("\n")
    first, last = (int(text.split()[0]) for text in (lines[0], lines[-2]))
    return told["usage"]["wall_ms"] - (last - first) / 1e6


def run(bench, server):
    quiet, hostile, late, wrong, count = beside(bench, server)
    say(f"\nOrdinary tasks of one client, quiet and beside {AT_A_TIME} of {count} hostile ones at a time, p50"
        f" and p95 ms")
    say(f"  {'':22} {'quiet':>16} {'beside':>16} {'times':>12}")
    rows = []
    for language in quiet:
        a, b = quiet[language], hostile[language]
        row = {"language": language, "quiet": [percentile(a, p) for p in (0.5, 0.95)],
               "beside": [percentile(b, p) for p in (0.5, 0.95)], "n": [len(a), len(b)]}
        row["times"] = [y / x for x, y in zip(row["quiet"], row["beside"])]
        rows.append(row)
        say(f"  {language:22} " + " ".join(f"{x:7.1f} {y:8.1f}" for x, y in (row["quiet"], row["beside"]))
            + f" {row['times'][0]:6.2f} {row['times'][1]:5.2f}")
    floods = {n: sorted(flood(server, n) for _ in range(max(5, int(30 * bench.scale)))) for n in (1, 2)}
    say("\nMilliseconds from too much output to the end of the task, its start included, and over a time limit")
    for n, found in floods.items():
        say(f"  flood of {n} stream{'s' if n > 1 else ' '}      p50 {statistics.median(found):6.1f}"
            f"  most {found[-1]:6.1f}")
    say(f"  over a time limit       p50 {statistics.median(late):6.1f}  most {max(late):6.1f}"
        f"  ({len(late)} tasks)")
    return {"rows": rows, "wrong": wrong, "attacks": count, "floods": floods, "late": sorted(late)}


def figures(told):
    def all_of(key, i):
        return statistics.geometric_mean([row[key][i] for row in told["rows"]])
    yield "ordinary tasks beside hostile ones, p50", all_of("times", 0), "times", "<=", 3
    yield "ordinary tasks beside hostile ones, p95", all_of("times", 1), "times", "<=", 3
    yield "ordinary tasks that went wrong", told["wrong"], "", "<=", 0
    yield ("a flood of output is stopped after, at most", max(v for f in told["floods"].values() for v in f),
           "ms", "<=", 50)
    yield "ended after its time limit, at most", max(told["late"]), "ms", "<=", 100
