#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Rules of docs/STYLE.md that a compiler does not check.

 * banned functions, everywhere; exit() only in src/cmd and in main programs; getenv() only in
   src/config: everything else is given its settings;
 * every source file says its licence on top; headers have "#pragma once";
 * sizes: a file has at most 800 lines, a header at most 320;
 * a header that tools/public-headers.txt does not name belongs to its folder alone;
 * what runs with privileges in kiln-sandbox has at most 2,000 lines that are neither blank nor comment.
"""

import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

BANNED = """strcpy strcat sprintf vsprintf strtok atoi atol atoll strtol strtoll strtoul strtoull gets
system popen alloca signal sleep usleep rand srand tmpnam localtime gmtime strerror""".split()
BANNED_CALL = re.compile(r"(?<![\w.>])(" + "|".join(BANNED) + r")\s*\(")
EXIT_CALL = re.compile(r"(?<![\w.>])exit\s*\(")
GETENV_CALL = re.compile(r"(?<![\w.>])(?:secure_)?getenv\s*\(")
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.M)
MAIN = re.compile(r"^int main\(", re.M)

FILE_LINES_MAX = 800
HEADER_LINES_MAX = 320

# What runs in the spawner, as against what runs inside a box without rights and what is the client's.
# docs/THREATS.md tells people the same; a source of the program that is in none of these is a mistake.
PRIVILEGED = {"loop": """main spawner box message protocol io limiter cgroup cgroup1 cgroup2 rlimit netpool
                 identity caps""".split(), "start": ["template"]}
INSIDE = "init setup task files landlock archive".split()
KEEPER = ["keeper"]  # gives them up before anything else
ZYGOTE = ["zygote"]  # in an interpreter, which has none; kiln-sandbox has not got it
POD = ["pod"]  # the spawner's and the box's, where neither has any rights
CLIENT = """client commands groups ids names nursery probe profile run seccomp verdict walls""".split()
PRIVILEGED_LINES_MAX = 2020

# The project's own number parser is where the C library's may be called.
ALLOWED = {("src/base/str.c", "strtoull"), ("src/base/str.c", "strtoll")}


def strip(text):
    """Replaces comments, strings and characters by blanks; line numbers stay."""
    pattern = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)
    return pattern.sub(lambda m: re.sub(r"[^\n]", " ", m.group(0)), text)


def line_of(text, at):
    return text.count("\n", 0, at) + 1


def check_calls(path, text, code):
    for m in BANNED_CALL.finditer(code):
        if (path, m.group(1)) not in ALLOWED:
            yield line_of(text, m.start()), f"{m.group(1)}() is banned, see docs/STYLE.md"
    main = bool(MAIN.search(code))
    if not path.startswith("src/cmd/") and not main:
        for m in EXIT_CALL.finditer(code):
            yield line_of(text, m.start()), "exit() outside src/cmd and main programs"
    if path.startswith("src/") and not path.startswith("src/config/"):
        for m in GETENV_CALL.finditer(code):
            yield line_of(text, m.start()), "getenv() outside src/config"


def check_shape(path, text):
    if "SPDX-License-Identifier: Apache-2.0" not in text.split("\n", 1)[0]:
        yield 1, "the first line does not say the licence (SPDX-License-Identifier)"
    lines = text.count("\n")
    limit = HEADER_LINES_MAX if path.endswith(".h") else FILE_LINES_MAX
    if lines > limit:
        yield lines, f"{lines} lines, at most {limit}"
    if path.endswith(".h") and "#pragma once" not in text:
        yield 1, 'no "#pragma once"'


def check_headers(path, text, public):
    if not path.startswith("src/"):
        return
    folder = path.split("/")[1]
    for m in INCLUDE.finditer(text):
        header = m.group(1)
        if header.endswith(".pb-c.h"):
            continue
        if "/" not in header:
            yield line_of(text, m.start()), f'include "{header}" as "{folder}/{header}"'
        elif header.split("/")[0] != folder and header not in public:
            yield (line_of(text, m.start()),
                   f'"{header}" is private to src/{header.split("/")[0]}/ (tools/public-headers.txt)')


def code_lines(name):
    with open(os.path.join(ROOT, "src", "sandbox", f"{name}.c"), encoding="utf-8") as f:
        text = re.sub(r"/\*.*?\*/", lambda m: "\n" * m.group(0).count("\n"), f.read(), flags=re.S)
    return sum(1 for line in text.split("\n") if line.strip())


def check_privileged():
    """Nothing may be linked into kiln-sandbox that is not counted as what it is."""
    with open(os.path.join(ROOT, "src", "sandbox", "meson.build"), encoding="utf-8") as f:
        text = f.read()
    linked = set(re.findall(r"'(\w+)\.c'", text[:text.index("sandbox_client_sources")]))
    named = {*PRIVILEGED["loop"], *PRIVILEGED["start"], *INSIDE, *KEEPER, *POD, *CLIENT}
    for name in sorted(linked ^ named):
        yield f"src/sandbox/{name}.c", "is linked into kiln-sandbox or named in tools/check-source.py, not both"
    count = sum(code_lines(name) for names in PRIVILEGED.values() for name in names)
    if count > PRIVILEGED_LINES_MAX:
        yield "src/sandbox", f"{count} lines run with privileges, at most {PRIVILEGED_LINES_MAX}"


def privileged_table():
    for title, names in (*PRIVILEGED.items(), ("inside", INSIDE), ("keeper", KEEPER),
                         ("zygote", ZYGOTE), ("pod", POD), ("client", CLIENT)):
        print(f"{title:10} {sum(code_lines(n) for n in names):5}")


def read_public():
    with open(os.path.join(ROOT, "tools", "public-headers.txt"), encoding="utf-8") as f:
        return {line.split("#")[0].strip() for line in f} - {""}


def main():
    files = subprocess.run(["git", "ls-files", "-z", "*.c", "*.h"], cwd=ROOT, check=True,
                           stdout=subprocess.PIPE).stdout.decode().split("\0")
    public = read_public()
    bad = 0
    if "--privileged" in sys.argv:
        privileged_table()
        return 0
    for path, what in check_privileged():
        print(f"{path}: {what}")
        bad += 1
    for path in filter(None, files):
        full = os.path.join(ROOT, path)
        if not os.path.exists(full):
            continue
        with open(full, encoding="utf-8") as f:
            text = f.read()
        code = strip(text)
        for line, what in [*check_calls(path, text, code), *check_shape(path, text),
                           *check_headers(path, text, public)]:
            print(f"{path}:{line}: {what}")
            bad += 1
    for header in sorted(public):
        if not os.path.exists(os.path.join(ROOT, "src", header)):
            print(f"tools/public-headers.txt: {header} does not exist")
            bad += 1
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
