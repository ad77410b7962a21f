# SPDX-License-Identifier: Apache-2.0
"""What is gained by what stands by, and what it holds while it waits."""

import os
import statistics
import sys
import time

from measure import CLIENTS, PACED_CLIENTS, PACED_SHARE, SETTLE_S, heading, line, say
from programs import PROGRAMS, UNIQUE, UNSEEN
from servers import ROOT, STANDBY_MIB, Server, tree

CURVE = (10, 30, 50, 70, 80, 90, 100, 110)  # offered load, per cent of saturation
CURVE_OF = ("c", "python", "javascript")
COLD_STARTS = 5
ROOMY_MIB = 1024  # so that each language has all that it may have

# An answer has one of these where an interpreter that stood by had the task.
WORDS = ("exec", "fork")


def setup_languages(programs):
    """Those that make something beforehand."""
    def makes(language):
        with open(os.path.join(ROOT, "languages", f"{language}.yaml"), encoding="utf-8") as f:
            return any(text.startswith("setup:") for text in f)
    return sorted({p.language for p in programs if makes(p.language)})


def unique(program):
    return ("--unique", UNIQUE) if program.comment else ()


class Pair:
    """A server with standbys and one without, which take turns; whoever waits costs nothing."""

    def __init__(self, bench, on, off):
        self.bench, self.servers = bench, {"on": on, "off": off}

    def word(self, program, body):
        """What an answer says where a standby had it; None where this language has none."""
        on = self.servers["on"]
        for _ in range(6):
            self.bench.load(on, body, 0.3, 1, extra=unique(program))
            time.sleep(1.5)  # until one has booted, and nobody has it
            _, task = on.request("POST", "/submit?wait=60", {
                "language": program.language, "code": program.text(time.monotonic_ns())})
            if task["isolation"]["standby"] in WORDS:
                return task["isolation"]["standby"]
        return None

    def each(self, name, measure):
        told = {}
        for mode, server in self.servers.items():
            told[mode] = measure(server)
            hits = told[mode].get("apart", {}).get("n", 0) / max(1, told[mode]["n"])
            line(f"{name}, {mode}", told[mode])
            if hits:
                say(f"  {'':22} {100 * hits:.0f} % had a standby, p50 {told[mode]['apart']['p50_ms']:.2f} ms")
        return told


def matrix(pair, program):
    bench = pair.bench
    say(f"\n{program.title}")
    body = bench.body(program.language, program.text())
    result = {"key": program.key, "title": program.title, "language": program.language}
    if program.comment:
        turns = bench.turns(pair.servers["on"], program)
        result["floor"] = {"p50_ms": turns["bare_ms"]}
        say(f"  {'bare':22} {turns['bare_ms']:9.2f}")
    else:
        result["floor"] = bench.floor(program)
        line("bare", result["floor"])
    result["word"] = word = pair.word(program, body)
    say(f"  {'stands by':22} {word or 'nothing but a sandbox'}")
    extra = (*unique(program), *(("--apart", f'"standby":"{word}"') if word else ()))

    def load(server, seconds, clients, rate=None):
        return bench.load(server, body, bench.seconds(seconds), clients, rate=rate, extra=extra)

    pair.each("warm up", lambda server: load(server, 1.5, 4))
    result["closed"] = [pair.each(f"{n} client{'s' if n > 1 else ''}", lambda s, n=n: load(s, 3, n))
                        for n in CLIENTS]
    result["saturation"] = {mode: max(c[mode]["rps"] for c in result["closed"]) for mode in pair.servers}

    def paced(server):
        rate = result["saturation"]["on" if server is pair.servers["on"] else "off"] * PACED_SHARE
        time.sleep(bench.seconds(SETTLE_S))
        load(server, 2, PACED_CLIENTS, rate)
        return load(server, 8, PACED_CLIENTS, rate)

    result["paced"] = pair.each("paced at 30 %", paced)
    # As many as there are slots: nobody waits for one, and none is free for a standby to be started.
    slots = pair.servers["on"].slots
    result["exhausted"] = pair.each(f"back to back, {slots}", lambda server: load(server, 3, slots))
    if word:
        cold_body = bench.body(program.language, program.text(), standby=False)
        result["declined"] = bench.load(pair.servers["on"], cold_body, bench.seconds(3), 1, extra=extra)
        line('"standby": false', result["declined"])
        if result["declined"]["apart"]["n"]:
            sys.exit(f"{program.title}: a standby had tasks that asked for none")
    for mode in pair.servers:
        say(f"  {'paced p50, ' + mode:22} {result['paced'][mode]['p50_ms'] / result['floor']['p50_ms']:9.2f} times bare")
    return result


def curve(bench, server, program, saturation):
    """What waits cost as the load comes near to what can be done, and passes it."""
    say(f"\n{program.title}: offered load, of {saturation:.0f}/s")
    body, points = bench.body(program.language, program.text()), []
    for percent in CURVE:
        rate = saturation * percent / 100
        time.sleep(bench.seconds(SETTLE_S))
        bench.load(server, body, bench.seconds(1), PACED_CLIENTS, rate=rate)
        told = bench.load(server, body, bench.seconds(4), PACED_CLIENTS, rate=rate)
        line(f"{percent} %, {rate:.0f}/s", told)
        points.append(told | {"offered": rate, "percent": percent})
    return points


def cold(bench, slots, programs):
    """The first task of each program after a start of the server, by one client."""
    say(f"\n  {'first task after a start':40} {'p50 ms':>9} {'worst ms':>9}  of {COLD_STARTS} starts")
    times = {p.key: [] for p in programs}
    for i in range(COLD_STARTS):
        with Server(bench.build, slots) as server:
            server.await_setup(setup_languages(programs))
            time.sleep(0.5)
            for program in programs[i % len(programs):] + programs[:i % len(programs)]:
                start = time.monotonic()
                _, task = server.request("POST", "/submit?wait=60", {
                    "language": program.language, "code": program.text(time.monotonic_ns())})
                times[program.key].append((time.monotonic() - start) * 1000)
                assert task["stdout"] == "hello\n", task
    for program in programs:
        say(f"  {program.title:40} {statistics.median(times[program.key]):9.2f} {max(times[program.key]):9.2f}")
    return times


# ---- what they hold ----

def charged_bytes(pid):
    """What the group of a box is charged with; None where there is none for memory."""
    with open(f"/proc/{pid}/cgroup", encoding="utf-8") as f:
        groups = [text.rstrip("\n").split(":", 2) for text in f]
    for _, names, path in groups:
        for where in ((f"/sys/fs/cgroup/memory{path}/memory.usage_in_bytes",) if "memory" in names.split(",") else
                      (f"/sys/fs/cgroup{path}/memory.current",) if not names else ()):
            try:
                with open(where, encoding="ascii") as f:
                    return int(f.read())
            except OSError:
                pass
    return None


def held_kib(init_pid):
    """By kind, of all processes of a box; None where they may not be looked at."""
    sums = dict.fromkeys(("Private_Clean", "Private_Dirty", "Anonymous", "Pss", "Rss"), 0)
    for pid in tree(init_pid):
        try:
            with open(f"/proc/{pid}/smaps_rollup", encoding="utf-8") as f:
                for text in f:
                    name, _, rest = text.partition(":")
                    if name in sums:
                        sums[name] += int(rest.split()[0])
        except PermissionError:
            return None
        except (FileNotFoundError, ProcessLookupError):
            pass
    return sums


def until_they_wait(bench, server, programs):
    """Some tasks of each, then until no more standbys are made."""
    for program in programs:
        bench.load(server, bench.body(program.language, program.text()), 1, 2, extra=unique(program))
    before, end = -1, time.monotonic() + 30
    while time.monotonic() < end:
        time.sleep(1.5)
        now = len(server.standbys())
        if now == before:
            break
        before = now


def memory(bench, slots, programs=None):
    """Of each standby that waits, once all languages have theirs."""
    say(f"\n  {'waits':22} {'':>3} {'private':>9} {'anonymous':>9} {'Pss':>9} {'group':>9}   MiB each, median")
    programs = programs or [*PROGRAMS, UNSEEN[2]]
    with Server(bench.build, slots, standby_mib=ROOMY_MIB) as server:
        server.await_setup(setup_languages(programs))
        until_they_wait(bench, server, programs)
        by_kind, metrics = {}, server.metrics()
        for one in server.standbys():
            kib = held_kib(one["init_pid"])
            if kib:
                by_kind.setdefault((one["language"], one["step"]), []).append(
                    {"private": (kib["Private_Clean"] + kib["Private_Dirty"]) / 1024, "anonymous": kib["Anonymous"] / 1024,
                     "pss": kib["Pss"] / 1024, "group": (charged_bytes(one["init_pid"]) or 0) / 2**20})
    if not by_kind:
        say("  none waits, or their memory may not be looked at (another user's processes: be root)")
    kinds = [{"language": language, "step": step, "n": len(all_of), "held_sum": sum(max(one["private"], one["group"]) for one in all_of)}
             | {name: statistics.median(one[name] for one in all_of) for name in all_of[0]}
             for (language, step), all_of in sorted(by_kind.items())]
    for kind in kinds:
        say(f"  {kind['language'] + ', ' + kind['step']:22} {kind['n']:3d} {kind['private']:9.1f} {kind['anonymous']:9.1f}"
            f" {kind['pss']:9.1f} {kind['group']:9.1f}")
    told = {name: value for name, value in metrics.items() if name.startswith("kiln_standby")}
    for name, value in sorted(told.items()):
        say(f"  {name} {value:.0f}")
    return {"kinds": kinds, "metrics": told}


def memory_figures(held):
    """Their private memory, or what their groups are charged with where that is more (processes of one box share pages),
    against what the budget counts them for."""
    used = held["metrics"].get('kiln_standby_budget_bytes{state="used"}')
    if used:
        yield ("standbys, what all hold", sum(k["held_sum"] for k in held["kinds"]), "MiB", "<=",
               round(used / 2**20))


# ---- all of it ----

def run(bench, slots, keys):
    """keys: of the programs to measure, or none for all and for what is not of one program."""
    programs = [p for p in [*PROGRAMS, *UNSEEN] if not keys or p.key in keys]
    report = {"keys": [p.key for p in programs]}
    with Server(bench.build, slots) as on, Server(bench.build, slots, standby_mib=0) as off:
        for server in (on, off):
            server.await_setup(setup_languages(programs))
        time.sleep(1)
        heading()
        pair = Pair(bench, on, off)
        report["programs"] = [matrix(pair, program) for program in programs]
        report["curves"] = {r["key"]: curve(bench, on, p, r["saturation"]["on"])
                            for r, p in zip(report["programs"], programs) if p.key in CURVE_OF}
    if not keys or "cold" in keys:
        report["cold"] = cold(bench, slots, [*PROGRAMS, *UNSEEN])
    if not keys or "memory" in keys:
        report["memory"] = memory(bench, slots)
    say(f"\nBudget of the servers above: {STANDBY_MIB} MiB, of the one for memory: {ROOMY_MIB} MiB")
    return report


def results(report, mode="on"):
    """As one server's, for the table of targets."""
    for r in report["programs"]:
        yield {"key": r["key"], "title": r["title"], "floor": r["floor"], "paced": r["paced"][mode],
               "closed": [c[mode] for c in r["closed"]]}
