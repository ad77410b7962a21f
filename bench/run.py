#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Measures Kiln beside the bare machine, in one run: see bench/README.md for what each figure is.

    bench/run.py --build build            the table, and a JSON file in bench/reports/
    bench/run.py --build build --quick    a tenth of the time, for a first look
    bench/run.py --build build --unseen   only what programs cost that were never seen
    bench/run.py --build build --sandbox  only what a sandbox costs by itself
    bench/run.py --build build --hostile  ordinary tasks beside hostile ones, and how late those end
    bench/run.py --build build --soak     what is held over 100,000 tasks, and nothing else
    bench/run.py --cluster                Kiln's pods on a Kubernetes of one node
    bench/run.py --distributed            Kiln as separate processes over PostgreSQL, RabbitMQ and
                                          Redis, beside the embedded one
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
import hostile
import pods
from measure import PROGRAMS, UNSEEN, Bench, line, ports, save, say, show_figures
from servers import CLEAN_ENV, ROOT, Server

SETUP = ("cpp", "java", "javascript")  # languages that make something beforehand


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
        body = bench.body("c", PROGRAMS[0][3])
        told = bench.load(server, body, bench.seconds(10), 16, expect=None,
                         extra=("--path", "/submit", "--status", "201"))
        server.kill("serve")  # what is queued need not be run
        return told


def soak(bench, slots, tasks):
    points = []
    with Server(bench.build, slots) as server:
        body = bench.body("c", PROGRAMS[0][3])
        bench.load(server, body, max(2, bench.seconds(20)), 16)  # what grows to its bound has grown
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


def unseen(bench, server):
    server.await_setup(SETUP)
    say(f"\n  {'compiled and run, never seen':32} {'bare ms':>9} {'p50 ms':>9} {'times':>9} {'CPU ms':>9}")
    return [bench.unseen(server, entry) for entry in UNSEEN]


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
    by_language = {p["language"]: p for p in report["programs"]}
    c, python = by_language["c"], by_language["python"]
    one, sixteen = c["closed"][0], c["closed"][-1]
    yield ("C hello over the bare floor, one client, p50", one["p50_ms"] - c["floor"]["p50_ms"],
           "ms", "<=", 2.5)
    yield ("Python hello over the bare floor, one client, p50",
           python["closed"][0]["p50_ms"] - python["floor"]["p50_ms"], "ms", "<=", 4.0)
    yield "C hello, 16 clients", sixteen["rps"], "/s", ">=", 500
    yield sandbox_figure(report["sandbox"])
    yield "C hello, 16 clients, p99 over p50", sixteen["p99_ms"] / sixteen["p50_ms"], "times", "<=", 5
    yield ("errors, all runs together", sum(t["errors"] for p in report["programs"]
                                            for t in [*p["closed"], p["paced"]]), "", "<=", 0)
    yield "submit alone, durable, 16 clients", report["submit_only"]["rps"], "/s", ">=", 8000
    yield "resident, idle", report["idle_mib"], "MiB", "<=", 60
    yield "start to ready", report["start_ms"], "ms", "<=", 1000


def show_soak(soak):
    curve = soak["curve"]
    top = max(p["resident_mib"] for p in curve)
    say(f"\nWhat is held over {soak['tasks']} tasks at {soak['rps']:.0f}/s, {soak['errors']} errors")
    step = max(1, len(curve) // 20)
    for point in curve[::step] + ([curve[-1]] if (len(curve) - 1) % step else []):
        say(f"  {point['tasks']:8d} {point['resident_mib']:8.1f} MiB {point['descriptors']:5d} descriptors"
            f" {point['mounts']:4d} mounts {point['groups']:4d} groups "
            f"{'#' * round(point['resident_mib'] / top * 40)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default=os.path.join(ROOT, "build"))
    parser.add_argument("--slots", type=int, default=max(2, min(8, os.cpu_count() or 2)))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--soak", nargs="?", type=int, const=100_000, metavar="TASKS")
    parser.add_argument("--unseen", action="store_true")
    parser.add_argument("--sandbox", action="store_true")
    parser.add_argument("--hostile", action="store_true")
    parser.add_argument("--distributed", action="store_true")
    parser.add_argument("--cluster", action="store_true")
    args = parser.parse_args()
    if args.cluster and not pods.inside():
        pods.enter(sys.argv)
    bench = Bench(args.build, args.quick)
    report = {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "machine": machine(),
              "slots": args.slots, "quick": args.quick}
    say(f"{report['machine']['cpu']}, {report['machine']['cores']} cores, kernel"
        f" {report['machine']['kernel']}; {args.slots} slots")
    try:
        if args.soak:
            report["soak"] = soak(bench, args.slots, args.soak)
            show_soak(report["soak"])
            show_figures(report, soak_figures(report["soak"]))
            save(report, "soak")
            return
        if args.unseen:
            with Server(bench.build, args.slots) as server:
                report["unseen"] = unseen(bench, server)
            save(report, "unseen")
            return
        if args.sandbox:
            report["sandbox"] = bench.sandbox()
            show_figures(report, [sandbox_figure(report["sandbox"])])
            save(report, "sandbox")
            return
        if args.hostile:
            with Server(bench.build, 4) as server:
                report["hostile"] = hostile.run(bench, server)
            show_figures(report, hostile.figures(report["hostile"]))
            save(report, "hostile")
            return
        if args.distributed:
            report["distributed"] = distributed.run(bench, args.slots)
            show_figures(report, distributed.figures(report["distributed"]))
            save(report, "distributed")
            return
        if args.cluster:
            report["cluster"] = pods.run(bench)
            show_figures(report, pods.figures(report["cluster"]))
            save(report, "cluster")
            return
        with Server(bench.build, args.slots) as server:
            report["start_ms"] = server.start_ms
            server.await_setup(SETUP)
            time.sleep(2)
            report["idle_mib"] = server.resident_mib()
            _, task = server.request("POST", "/submit?wait=30", {"language": "bash", "code": "true"})
            report["isolation"] = task["isolation"]
            say(f"Isolation: {json.dumps(task['isolation'])}")
            say(f"\n  {'':22} {'p50 ms':>9} {'p95 ms':>9} {'p99 ms':>9} {'per second':>10}"
                f" {'CPU ms':>9} {'errors':>7}")
            report["programs"] = [bench.program(server, entry) for entry in PROGRAMS]
            report["after_mib"] = server.resident_mib()
            report["unseen"] = unseen(bench, server)
        report["sandbox"] = bench.sandbox()
        say("\nSubmit alone, slots occupied")
        report["submit_only"] = submit_only(bench)
        line("16 clients", report["submit_only"])
        say(f"\nResident: {report['idle_mib']:.1f} MiB idle, {report['after_mib']:.1f} MiB after the load."
            f" Ready {report['start_ms']:.0f} ms after the start.")
        show_figures(report, figures(report))
        save(report, "quick" if args.quick else "full")
    finally:
        shutil.rmtree(bench.scratch, ignore_errors=True)


if __name__ == "__main__":
    main()
