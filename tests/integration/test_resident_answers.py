# SPDX-License-Identifier: Apache-2.0
"""What a compiler that stays answers is believed no further than it can be checked; what cannot be is compiled by another."""

import json
import os
import shutil
import time

import pytest

import runner as r

ROOT = os.geteuid() == 0


def told(result):
    c = result.compiled
    return c["exit_code"], c["limit_hit"], c["output_truncated"], c["output"].decode(errors="replace")


# A compiler that answers what its source says. No braces: those are for placeholders.
LIAR = r"""
import os, struct, sys, time
def number(): return struct.unpack(">I", given.read(4))[0]
def data(): return given.read(number())
def put(b): return struct.pack(">I", len(b)) + b
given = os.fdopen(63, "rb")
os.write(62, b"w")
while True:
    given.read(4)
    for _ in range(number()): data()
    files = dict()
    for _ in range(number()):
        name = data(); number(); files[name] = data()
    lie = files[b"main.liar"].decode().split()[0]
    names = dict(up=b"../main.out", root=b"/main.out", dot=b"./main.out", empty=b"", long=b"a/" * 600 + b"main.out",
                 nul=b"main.out\0", other=b"main.bad")
    code = dict(refuses=2, declines=-1, killed=137).get(lie, 0)
    made = [(names.get(lie, b"main.out"), b"resident\n")]
    if lie == "twice": made *= 2
    if lie == "many": made = [(b"%d.out" % i, b"") for i in range(300)]
    text = b"x" * (2 << 20) if lie == "talks" else b""
    body = struct.pack(">iQ", code, 1 << 60) + put(text) + struct.pack(">I", len(made)) + b"".join(put(n) + put(c) for n, c in made)
    if lie == "short": body = body[:-3]
    if lie == "more": body += b"xyz"
    if lie == "count": body = body[:12] + struct.pack(">I", 0xffffffff) + body[16:]
    answer = put(body)
    if lie == "endless": answer = struct.pack(">I", 0xfffffff0) + body
    if lie == "twofold": answer *= 2
    if lie == "dies": os._exit(0)
    if lie == "closes": os.close(62); time.sleep(60)
    if lie == "half": os.write(62, answer[:9]); os._exit(0)
    if lie == "hangs": time.sleep(60)
    for i in range(0, len(answer), 4096): os.write(62, answer[i:i + 4096])
    if lie == "late": time.sleep(0.2); os.write(62, b"more")
"""
LANGUAGE = f"""name: liar
title: Liar
extensions: [.liar]
source: main.liar
version: {{argv: [/usr/bin/python3, --version]}}
compile:
  argv: [/bin/cp, "{{entry}}", main.out]
  produces: ["*.out"]
  resident: {{argv: [/usr/bin/python3, -c, {json.dumps(LIAR)}], memory_bytes: 10MiB}}
run: {{argv: [/bin/cat, main.out]}}
check: {{hello: {{code: x, stdout: "x"}}}}
"""


@pytest.fixture(scope="module")
def liar():
    folder = r.copy_languages()
    with open(os.path.join(folder, "liar.yaml"), "w", encoding="utf-8") as f:
        f.write(LANGUAGE)
    one = r.Runner("--standby-bytes", "64MiB", "--compile-cache-bytes", "0", "--resident-compilers", "1000",
                   *(("--user", "64777:64777") if ROOT else ()), languages=folder, slots=1)
    yield one
    log = one.log_text()
    assert one.close() == 0 and "ERROR: " not in log and "runtime error" not in log, log
    shutil.rmtree(folder)


def honest(one):
    end = time.monotonic() + 20
    while True:
        result = one.run("liar", "honest\n", entry="main.liar")
        if result.done["standby"] == "resident":
            assert result.stdout == b"resident\n"
            return result
        assert result.stdout == b"honest\n" and time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize("lie", ["up", "root", "dot", "empty", "long", "nul", "refuses", "declines", "killed", "many", "talks", "short",
                                 "more", "count", "endless", "twofold", "dies", "closes", "half"])
def test_answer_that_cannot_be_is_no_answer(liar, lie):
    """A fresh compiler says what comes of the program, and another one stays."""
    honest(liar)
    result = liar.run("liar", f"{lie}\n", entry="main.liar")
    assert result.stdout == f"{lie}\n".encode() and result.done["standby"] != "resident", result.done
    honest(liar)


def test_what_was_not_asked_for_is_left_out(liar):
    """What was made must be what a step hands on."""
    honest(liar)
    result = liar.run("liar", "other\n", entry="main.liar")
    assert told(result)[0] not in (0, None) and "made no" in told(result)[3]


def test_time_that_it_claims_is_within_its_limit(liar):
    assert 0 < honest(liar).compiled["usage"]["cpu_us"] <= 15_000_000


def test_one_that_says_more_later_ends(liar):
    honest(liar)
    assert liar.run("liar", "late\n", entry="main.liar").stdout == b"resident\n"
    time.sleep(0.5)
    assert liar.run("liar", "honest\n", entry="main.liar").stdout == b"honest\n"


def test_one_that_hangs_has_its_time(liar):
    honest(liar)
    end = time.monotonic() + 20
    limits = {"wall_ms": 700}
    while liar.run("liar", "honest\n", entry="main.liar", compile_limits=limits).done["standby"] != "resident":
        assert time.monotonic() < end
    result = liar.run("liar", "hangs\n", entry="main.liar", compile_limits=limits)
    assert r.LIMITS[result.compiled["limit_hit"]] == "wall" and 600_000 < result.compiled["usage"]["wall_us"] < 5_000_000
    honest(liar)
