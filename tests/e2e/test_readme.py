# SPDX-License-Identifier: Apache-2.0
"""The README tells what happens: each of its commands is typed as printed, and must say the same."""

import os
import re
import subprocess

import harness

# What differs from run to run and from machine to machine.
VARIABLE = [
    (re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}"), "ID"),
    (re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z"), "TIME"),
    (re.compile(r'"(cpu_ms|wall_ms|memory_bytes|landlock)": \w+'), r'"\1": N'),
    (re.compile(r'"(limits|standby)": "\w+"'), r'"\1": WORD'),
    (re.compile(r"\d+ ms"), "N ms"),
]


def settle(text):
    for pattern, word in VARIABLE:
        text = pattern.sub(word, text)
    return text.strip()


def sessions():
    """(command, expected output) of all console blocks, in order."""
    with open(os.path.join(harness.ROOT, "README.md"), encoding="utf-8") as f:
        text = f.read()
    for block in re.findall(r"^```console\n(.*?)^```", text, re.M | re.S):
        for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
            command, _, output = part.partition("\n")
            yield command, output


def test_commands_of_the_readme_say_what_it_prints(server, tmp_path):
    address = f"127.0.0.1:{server.port}"
    count = 0
    for command, expected in sessions():
        typed = command.replace("127.0.0.1:8080", address)
        typed = typed.replace("build/kiln", harness.program("kiln"))
        done = subprocess.run(["bash", "-c", typed], cwd=tmp_path, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              env=harness.clean_env({"KILN_SERVER": f"http://{address}"}),
                              check=False, timeout=harness.PATIENCE)
        assert settle(done.stdout) == settle(expected), command
        count += 1
    assert count >= 6
