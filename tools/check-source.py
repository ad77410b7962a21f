#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Rules of docs/STYLE.md that a compiler does not check.

 * banned functions, everywhere; exit() only in src/cmd and in main programs; getenv() only in
   src/config: everything else is given its settings;
 * every source file says its licence on top; headers have "#pragma once";
 * sizes: a file has at most 800 lines, a header at most 320;
 * a header that tools/public-headers.txt does not name belongs to its folder alone.
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


def read_public():
    with open(os.path.join(ROOT, "tools", "public-headers.txt"), encoding="utf-8") as f:
        return {line.split("#")[0].strip() for line in f} - {""}


def main():
    files = subprocess.run(["git", "ls-files", "-z", "*.c", "*.h"], cwd=ROOT, check=True,
                           stdout=subprocess.PIPE).stdout.decode().split("\0")
    public = read_public()
    bad = 0
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
