# SPDX-License-Identifier: Apache-2.0
"""What a hostile program is, and how the tables of this folder write one down.

A program prints "ESCAPED ..." when an attack has worked, which fails the test; "says" is what it must
print, so that an attack that was never tried does not pass for one that was refused."""

import base64
from typing import NamedTuple

MIB = 1 << 20
# Everything that a task leaves anywhere has this in its name: the census looks for it.
MARK = "kiln-hostile"

# For a program that ends by itself: refused, it stops. The limits are the safety net.
ENDS = {"wall_ms": 10000, "cpu_ms": 5000}
# For one that does not.
BOMB = {"wall_ms": 1500, "cpu_ms": 1000, "memory_bytes": 64 * MIB, "processes": 32}

DONE = {"ok", "runtime_error", "signalled"}  # by itself
STOPPED = {"time_limit", "memory_limit", "output_limit"}  # by Kiln
ANY = DONE | STOPPED | {"compile_error"}

# What must hold on the host whatever programs of a kind do, besides that all of them end within their limits,
# that nothing is left (census.py) and that ordinary tasks beside them are right.
INVARIANTS = {
    "compiler": "a compiler reads no file of the host's that is not its own, and stays within limits of its own",
    "escape": "nothing of the host, of Kiln or of others is seen, reached or changed",
    "files": "what is written is bounded in bytes and in files, and is gone with the task",
    "kernel": "calls that namespaces do not isolate are refused or do nothing",
    "leave": "nothing that a task left is there after it",
    "memory": "no more than the limit is used, and whoever is ended for it is the task itself",
    "output": "no more than the limit is kept, none of it altered, and a flood ends the task",
    "pairs": "no task finds anything of another one, before, beside or after it",
    "processes": "no process outlives its task or reaches one outside, and their number is bounded",
    "standby": "an interpreter that stood by serves one program, and leaves it no way to those that still do",
    "time": "CPU time of all processes together and time on the clock are bounded",
}


class Attack(NamedTuple):
    kind: str
    name: str
    language: str
    code: str
    outcome: frozenset
    limits: dict
    says: tuple = ()  # in stdout and stderr, or what the compiler said
    hides: tuple = ()  # must be nowhere
    stdin: str = ""
    args: tuple = ()


def attack(kind, name, language, code, outcome, says=(), limits=None, **kw):
    outcome = frozenset([outcome] if isinstance(outcome, str) else outcome)
    assert outcome <= ANY and (kind in INVARIANTS or kind == "test"), (kind, name, outcome)
    says = (says,) if isinstance(says, str) else says
    return Attack(kind, f"{kind}-{name}", language, code, outcome, limits or ENDS, tuple(says), **kw)


C_HEAD = r"""#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
static char big[1 << 16];
static void said(const char *what, long result)
{
	if (result >= 0)
		printf("ESCAPED %s: %ld\n", what, result);
	else
		printf("%s refused: %s\n", what, strerrorname_np(errno));
	fflush(stdout);
}
"""


def c(body, head=""):
    return f"{C_HEAD}\n{head}\nint main(int argc, char **argv)\n{{\n(void)argc, (void)argv, (void)big;\n" \
           f"{body}\nreturn 0;\n}}\n"


def refused(kind, name, expression, before=""):
    """One call in C that must not work."""
    return attack(kind, name, "c", c(f'{before}\nsaid("{name}", (long)({expression}));'), "ok",
                  f"{name} refused: ")


def java(body, imports=""):
    return (f"import java.io.*;\nimport java.nio.file.*;\nimport java.util.*;\n{imports}\n"
            "public class Main {\n    public static void main(String[] args) throws Exception {\n"
            f"{body}\n    }}\n}}\n")


def reads(kind, name, path):
    """Python that must not be able to read a file; what it reads is shown in case it can."""
    code = f"try:\n    data = open({path!r}, 'rb').read(200)\n    print('ESCAPED', len(data), data[:60])\n" \
           f"except OSError as e:\n    print('refused:', e)\n"
    return attack(kind, name, "python", code, "ok", "refused:")


def text_of(task, stream):
    text = task[stream] or ""
    if task.get(f"{stream}_encoding") == "base64":
        return base64.b64decode(text).decode(errors="replace")
    return text
