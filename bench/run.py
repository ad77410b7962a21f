#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Measures Kiln beside the bare machine, in one run: see bench/README.md for what each figure is.

    bench/run.py --build build            the table, and a JSON file in bench/reports/
    bench/run.py --build build --quick    a tenth of the time, for a first look
    bench/run.py --build build --only c,python   some of the programs of the table
    bench/run.py --build build --standby  with standbys and without, and what they hold; or of some programs
    bench/run.py --build build --unseen   only what programs cost that were never seen
    bench/run.py --build build --sandbox  only what a sandbox costs by itself
    bench/run.py --build build --hostile  ordinary tasks beside hostile ones, and how late those end
    bench/run.py --build build --soak     what is held over 100,000 tasks, and nothing else
    bench/run.py --cluster                Kiln's pods on a Kubernetes of one node
    bench/run.py --distributed            Kiln as separate processes over PostgreSQL, RabbitMQ and
                                          Redis, beside the embedded one
    bench/run.py --driver go-judge --url http://127.0.0.1:5050   another system under the same load
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time

import distributed
import drivers
import hostile
import pods
import standby
import targets
from measure import Bench, heading, line, ports, save, say, show_figures
from programs import PROGRAMS, UNSEEN
from servers import CLEAN_ENV, ROOT, Server, stolen


def submit_only(bench):
    """All slots are taken by tasks that sleep: what is measured is accepting and storing."""
    config = "queue_max: 2000000\n"
    with Server(bench.build, 1, config) as server:
        status, task = server.request("POST", "/submit", {
            "language": "bash", "code": "sleep 50", "limits": {"wall_ms": 60000}})
        if status != 201:
            sys.exit(f"could not occupy the slot: {task}")
        while server.request("GET", f"/result/{task['task_id']}")[1]["status"] != "running":
            time.sleep(0.02)
        body = bench.body("c", PROGRAMS[0].code)
        told = bench.load(server, body, bench.seconds(10), 16, expect=None,
                         extra=("--path", "/submit", "--status", "201"))
        server.kill("serve")  # what is queued need not be run
        return told


# Reached within the load before: the default holds 50,000 results, and would fill all the while.
SOAK_CONFIG = "cache_max_bytes: 1MiB\n"


def soak(bench, slots, tasks):
    points = []
    with Server(bench.build, slots, SOAK_CONFIG) as server:
        body = bench.body("c", PROGRAMS[0].code)
        # What grows to its bound has grown then: the store's caches of pages have after 15,000.
        bench.load(server, body, 86400, 16, extra=("--requests", "20000"))
        process = subprocess.Popen(
            [bench.tool("bench-load"), *ports(server), "--body", body, "--clients", "16",
             "--requests", str(tasks), "--seconds", "86400", "--expect", "hello\\n"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, env=CLEAN_ENV)
        start = time.monotonic()
        while process.poll() is None:
            points.append((time.monotonic() - start, server.held()))
            time.sleep(2)
        told = json.loads(process.stdout.read())
        points.append((time.monotonic() - start, server.held()))
    curve = [{"tasks": round(told["n"] * at / points[-1][0])} | held for at, held in points]
    return {"tasks": told["n"], "errors": told["errors"], "rps": told["rps"], "curve": curve,
            "slopes": {name: slope(curve, name) for name in points[0][1]}}


def slope(curve, name):
    """Of the straight line through all points, per 100,000 tasks."""
    if len(curve) < 3:
        return 0.0
    return statistics.linear_regression([p["tasks"] for p in curve], [p[name] for p in curve]).slope * 1e5


def soak_figures(soak):
    for name, unit, most in (("resident_mib", "MiB", 1), ("descriptors", "", 5), ("mounts", "", 1), ("groups", "", 1)):
        yield f"{name.replace('_mib', '')}, more per 100,000 tasks", soak["slopes"][name], unit, "<=", most
    yield "errors", soak["errors"], "", "<=", 0


def machine():
    def first(argv):
        try:
            done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                  check=False, env=CLEAN_ENV)
            return done.stdout.splitlines()[0] if done.stdout else ""
        except OSError:
            return "not installed"
    model = ""
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        for text in f:
            if text.startswith("model name"):
                model = text.split(":", 1)[1].strip()
                break
    return {"cpu": model, "cores": os.cpu_count(), "kernel": platform.release(),
            "gcc": first(["gcc", "--version"]), "python": first(["/usr/bin/python3", "--version"]),
            "java": first(["/usr/bin/java", "-version"])}


def sandbox_figure(told):
    return "one sandbox for a static C hello, CPU", told["auto"]["cpu_ms"], "ms", "<=", 2.5


def figures(report):
    """The project's own targets, on this machine in this run."""
    yield from targets.figures(report["programs"])
    if "sandbox" not in report:  # some programs, and nothing else
        return
    yield sandbox_figure(report["sandbox"])
    yield ("errors, all runs together", sum(t["errors"] for p in report["programs"]
                                            for t in [*p["closed"], p["paced"]]), "", "<=", 0)
    yield "submit alone, durable, 16 clients", report["submit_only"]["rps"], "/s", ">=", 8000
    yield "resident, idle", report["idle_mib"], "MiB", "<=", 60
    yield "start to ready", report["start_ms"], "ms", "<=", 1000
    yield from standby.memory_figures(report["standbys"])


def show_soak(soak):
    curve = soak["curve"]
    top = max(p["resident_mib"] for p in curve)
    say(f"\nWhat is held over {soak['tasks']} tasks at {soak['rps']:.0f}/s, {soak['errors']} errors")
    step = max(1, len(curve) // 20)
    for point in curve[::step] + ([curve[-1]] if (len(curve) - 1) % step else []):
        say(f"  {point['tasks']:8d} {point['resident_mib']:8.1f} MiB {point['descriptors']:5d} descriptors"
            f" {point['mounts']:4d} mounts {point['groups']:4d} groups "
            f"{'#' * round(point['resident_mib'] / top * 40)}")


def wanted(keys, programs):
    return [p for p in programs if not keys or p.key in keys]


def measure_programs(bench, args, report, programs, unseen):
    with Server(bench.build, args.slots) as server:
        report["start_ms"] = server.start_ms
        server.await_setup(standby.setup_languages([*programs, *unseen]))
        time.sleep(2)
        report["idle_mib"] = server.resident_mib()
        _, task = server.request("POST", "/submit?wait=30", {"language": "bash", "code": "true"})
        report["isolation"] = task["isolation"]
        say(f"Isolation: {json.dumps(task['isolation'])}")
        heading()
        report["programs"] = [bench.program(server, p) for p in programs] + [bench.unseen(server, p) for p in unseen]
        report["after_mib"] = server.resident_mib()


def full(bench, args, report):
    measure_programs(bench, args, report, wanted(args.only, PROGRAMS), wanted(args.only, UNSEEN))
    if not args.only:
        report["standbys"] = standby.memory(bench, args.slots)
        report["sandbox"] = bench.sandbox()
        say("\nSubmit alone, slots occupied")
        report["submit_only"] = submit_only(bench)
        line("16 clients", report["submit_only"])
    say(f"\nResident: {report['idle_mib']:.1f} MiB idle, {report['after_mib']:.1f} MiB after the load."
        f" Ready {report['start_ms']:.0f} ms after the start.")
    return figures(report)


def only_unseen(bench, args, report):
    measure_programs(bench, args, report, [], UNSEEN)
    return targets.figures(report["programs"])


def only_standby(bench, args, report):
    report["standby"] = standby.run(bench, args.slots, args.standby)
    return targets.figures(list(standby.results(report["standby"])))


def only_driver(bench, args, report):
    if not args.url:
        sys.exit("--driver needs --url http://ADDRESS:PORT")
    report["driver"] = drivers.run(bench, args.driver, args.url, args.pid, args.only)
    return targets.figures(report["driver"]["programs"], [(key, {name: target for name, target in of.items() if
                                                                 name != "cpu" or args.pid})
                                                          for key, of in targets.TARGETS])


def only_sandbox(bench, _, report):
    report["sandbox"] = bench.sandbox()
    return [sandbox_figure(report["sandbox"])]


def only_soak(bench, args, report):
    report["soak"] = soak(bench, args.slots, args.soak)
    show_soak(report["soak"])
    return soak_figures(report["soak"])


def only_hostile(bench, _, report):
    with Server(bench.build, 4) as server:
        report["hostile"] = hostile.run(bench, server)
    return hostile.figures(report["hostile"])


def only_distributed(bench, args, report):
    report["distributed"] = distributed.run(bench, args.slots)
    return distributed.figures(report["distributed"])


def only_cluster(bench, _, report):
    report["cluster"] = pods.run(bench)
    return pods.figures(report["cluster"])


MODES = {"soak": only_soak, "unseen": only_unseen, "standby": only_standby, "driver": only_driver,
         "sandbox": only_sandbox, "hostile": only_hostile, "distributed": only_distributed, "cluster": only_cluster}


def keys(text):
    known = [p.key for p in [*PROGRAMS, *UNSEEN]]
    for key in text.split(","):
        if key not in known and key not in ("cold", "memory"):
            raise argparse.ArgumentTypeError(f"{key} is none of {', '.join(known)}")
    return text.split(",")


def options():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default=os.path.join(ROOT, "build"))
    parser.add_argument("--slots", type=int, default=max(2, min(8, os.cpu_count() or 2)))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", type=keys, metavar="PROGRAMS")
    parser.add_argument("--serve", action="append", default=[], metavar="OPTION",
                        help="of kiln serve, as in --serve=--standby-bytes=1GiB; may come several times")
    parser.add_argument("--report", metavar="FILE", help="instead of one in bench/reports/")
    parser.add_argument("--url", metavar="http://ADDRESS:PORT")
    parser.add_argument("--pid", type=int, help="of the other system: CPU of it and all below it is told")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--soak", nargs="?", type=int, const=100_000, metavar="TASKS")
    mode.add_argument("--standby", nargs="?", type=keys, const=[], metavar="PROGRAMS")
    mode.add_argument("--driver", metavar="NAME", help=f"{', '.join(drivers.names())}, or a file")
    for name in ("unseen", "sandbox", "hostile", "distributed", "cluster"):
        mode.add_argument(f"--{name}", action="store_true")
    return parser.parse_args()


def main():
    args = options()
    mode = next((name for name in MODES if getattr(args, name) not in (None, False)), None)
    if mode == "cluster" and not pods.inside():
        pods.enter(sys.argv)
    bench = Bench(args.build, args.quick)
    report = {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "machine": machine(),
              "slots": args.slots, "quick": args.quick, "options": args.serve}
    Server.options = args.serve
    say(f"{report['machine']['cpu']}, {report['machine']['cores']} cores, kernel"
        f" {report['machine']['kernel']}; {args.slots} slots")
    begin = stolen()
    try:
        show_figures(report, MODES.get(mode, full)(bench, args, report))
        report["stolen"] = (stolen()[0] - begin[0]) / max(1, stolen()[1] - begin[1])
        say(f"\nTime that other machines of this host had meanwhile (steal): {100 * report['stolen']:.1f} %")
        save(report, args.driver if mode == "driver" and args.driver in drivers.names() else
             mode or ("quick" if args.quick else "full"), args.report)
    finally:
        shutil.rmtree(bench.scratch, ignore_errors=True)
    failed = report.get("driver", {}).get("failed")
    if failed:
        sys.exit(f"not measured: {', '.join(failed)}")


if __name__ == "__main__":
    main()
