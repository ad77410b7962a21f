# SPDX-License-Identifier: Apache-2.0
"""What of a server's tasks can be seen on the host. Equal before and after, or something was left.

Interpreters that stand by come and go as tasks do. What is theirs is told by their runner (SIGUSR1), sandbox by
sandbox; a sandbox of these is left out while it holds what it should and nothing else: its first process, and
one interpreter with the command of its language. With anything more in it, all of it counts."""

import glob
import json
import os
import re
import signal

import yaml

import harness
from attack import MARK

# Ids of their own, so that other servers of this machine are not counted.
UID_BASE, UIDS = 1610612736, 4096


def ours(uid):
    return UID_BASE <= uid < UID_BASE + UIDS


def lines(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as f:
            return f.read().splitlines()
    except OSError:
        return []


def log_of(server):
    for line in server.log_text().splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            pass


def accounts(server):
    """What each runner says that it has started, by pid: [what stands by], and the language that it makes things
    for beforehand."""
    found, table = {}, harness.processes()
    for pid in server.pids("kiln-runner"):
        # A child of one has its name until it is another program.
        if pid not in table or table.get(table[pid][0], (0, ""))[1] == "kiln-runner":
            continue
        before = sum(line.get("msg") == "account" for line in log_of(server))
        os.kill(pid, signal.SIGUSR1)
        harness.wait_until(lambda before=before: sum(line.get("msg") == "account" for line in log_of(server)) >
                           before, what="the account of a runner")
        standing = []
        for line in log_of(server):
            if line.get("msg") == "stands by":
                standing.append(line)
            elif line.get("msg") == "account":
                last, standing = (standing, line), []
        assert len(last[0]) == last[1]["standbys"], last
        found[pid] = last
    return found


def commands():
    """The commands that stand by, as far as nothing is put in."""
    found = {}
    folder = os.path.join(harness.ROOT, "languages")
    for path in glob.glob(os.path.join(folder, "*.yaml")):
        with open(path, encoding="utf-8") as f:
            language = yaml.safe_load(f)
        for step in ("compile", "run"):
            argv = (language.get(step) or {}).get("standby", {}).get("argv")
            if argv:
                found.setdefault(language["name"], []).append(argv)
    return found


COMMANDS = commands()


def is_command(argv, wanted):
    """Whether argv is the command wanted, whose placeholders stand for anything."""
    patterns = [re.sub(r"\\\{\w+\\\}", ".*", re.escape(word)) for word in wanted]
    return len(argv) == len(patterns) and all(re.fullmatch(p, word) for p, word in zip(patterns, argv))


def is_interpreter(language, pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as f:
            argv = f.read().decode(errors="replace").split("\0")[:-1]
    except OSError:
        return False
    return any(is_command(argv, wanted) for wanted in COMMANDS.get(language, []))


def is_whole(language, init, inside):
    """Whether a sandbox holds one interpreter that stands by, and nothing else: the first process of one that was
    forked is a fork too."""
    return len(inside) == 2 and all(is_interpreter(language, p) for p in inside if p != init) and \
        (lines(f"/proc/{init}/comm") == ["kiln-sandbox"] or is_interpreter(language, init))


def standing():
    """The processes of all interpreters that stand by whole, {pid: language}; of all servers, since their sandboxes
    have the same ids."""
    told_all = [told for server in harness.servers if server.process for told, _ in accounts(server).values()]
    found, table = {}, harness.processes()
    for told in told_all:
        for line in told:
            init = line["init_pid"]
            inside = [p for p in harness.descendants(init, table) | {init} if p in table]
            if is_whole(line["language"], init, inside):
                found.update(dict.fromkeys(inside, line["language"]))
                # What it was forked of, which is in no sandbox.
                if is_interpreter(line["language"], table[init][0]):
                    found[table[init][0]] = line["language"]
    return found


def processes(but=()):
    """Their names: boxes that wait for a task are processes too, and made new after each."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if int(pid) in but:
            continue
        for line in lines(f"/proc/{pid}/status"):
            if line.startswith("Uid:") and any(ours(int(u)) for u in line.split()[1:]):
                found += lines(f"/proc/{pid}/comm")
    return sorted(found)


def tasks():
    """Of these, what is a task and no box that waits for one."""
    return [name for name in processes(standing()) if name != "kiln-sandbox"]


def is_making(server):
    """Whether a language still makes things beforehand: that runs as the runner's child."""
    return any(line["setup"] for _, line in accounts(server).values())


def tree(server, but):
    table = harness.processes()
    return sorted(table[p][1] for p in server.tree() if p in table and p not in but)


def mounts(server):
    return sorted(line.split()[4] for line in lines("/proc/self/mountinfo")
                  if server.directory in line or MARK in line or "kiln-box" in line)


def members(group, but):
    """How many processes are in groups below it: those of boxes that wait. And groups that are of no
    box: the other ones may be kept empty for the next use."""
    below = [name for name in os.listdir(group) if os.path.isdir(os.path.join(group, name))]
    inside = [int(pid) for name in below for pid in lines(os.path.join(group, name, "cgroup.procs"))]
    return (sum(pid not in but for pid in inside),
            [name for name in below if not re.fullmatch(r"b\d+", name)])


def cgroups(server, but):
    """Those of our spawners, and how many processes are in the leaves that they keep."""
    pids = {str(p) for p in server.tree()}
    found = []
    for where, folders, _ in os.walk("/sys/fs/cgroup"):
        for name in folders:
            parts = name.split(".")
            if MARK in name or (parts[0] == "kiln-sandbox" and len(parts) > 2 and parts[2] in pids):
                path = os.path.join(where, name)
                found.append((path, members(path, but)))
    return sorted(found)


def sockets():
    return sorted(line.split()[-1] for line in lines("/proc/net/unix") if MARK in line and "@" in line)


def locks():
    """Of nobody who lives: then somebody else has the open file."""
    found = [line.split() for line in lines("/proc/locks")]
    return sorted(" ".join(w[1:]) for w in found
                  if w[1] != "->" and w[4].isdigit() and not os.path.exists(f"/proc/{w[4]}"))


def descriptors(pids):
    """How many these processes have open."""
    count = 0
    for pid in pids:
        try:
            count += len(os.listdir(f"/proc/{pid}/fd"))
        except OSError:
            pass
    return count


def memory_kib(pids):
    """Their own, resident now."""
    return sum(int(line.split()[1]) for pid in pids for line in lines(f"/proc/{pid}/smaps_rollup")
               if line.startswith("Private_"))


def standbys(server):
    """How many stand by, or boot."""
    return sum(len(told) for told, _ in accounts(server).values())


def ipc():
    """System V objects by any of our ids as owner or creator; message queues of POSIX."""
    found = []
    for kind in ("shm", "sem", "msg"):
        for line in lines(f"/proc/sysvipc/{kind}")[1:]:
            numbers = [int(w) for w in line.split() if w.isdigit()]
            if 0x4b494c4e in numbers[:1] or any(ours(n) for n in numbers):
                found.append((kind, line))
    return found


def keys():
    return sorted(line for line in lines("/proc/key-users") if ours(int(line.split(":")[0]))) + \
        sorted(line for line in lines("/proc/keys") if MARK in line)


def files(server):
    """Everything in the data folder but what the store is made of; and in the places where all write
    what has our name or an owner of ours."""
    found = []
    for where, folders, names in os.walk(server.data):
        found += [os.path.join(where, n) for n in folders + names if not n.startswith("kiln.db")]
    for place in ("/tmp", "/dev/shm", "/var/tmp", "/dev/mqueue"):
        try:
            entries = list(os.scandir(place))
        except OSError:
            continue
        for entry in entries:
            try:
                owner = entry.stat(follow_symlinks=False).st_uid
            except OSError:
                continue
            if ours(owner) or (entry.name.startswith(MARK) and not entry.name.startswith(MARK + "-test")):
                found.append(entry.path)
    return sorted(found)


def take(server):
    """Between two accounts that say the same, so that what came or went meanwhile is in neither."""
    while True:
        but = standing()
        found = {"processes": processes(but), "mounts": mounts(server), "cgroups": cgroups(server, but),
                 "ipc": ipc(), "keys": keys(), "files": files(server), "tree": tree(server, but),
                 "sockets": sockets(), "locks": locks()}
        if standing() == but:
            return found
