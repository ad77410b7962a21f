# SPDX-License-Identifier: Apache-2.0
"""What of a server's tasks can be seen on the host. Equal before and after, or something was left."""

import os
import re

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


def processes():
    """Their names: boxes that wait for a task are processes too, and made new after each."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        for line in lines(f"/proc/{pid}/status"):
            if line.startswith("Uid:") and any(ours(int(u)) for u in line.split()[1:]):
                found += lines(f"/proc/{pid}/comm")
    return sorted(found)


def tasks():
    """Of these, what is a task and no box that waits for one."""
    return [name for name in processes() if name != "kiln-sandbox"]


def tree(server):
    table = harness.processes()
    return sorted(table[p][1] for p in server.tree() if p in table)


def mounts(server):
    return sorted(line.split()[4] for line in lines("/proc/self/mountinfo")
                  if server.directory in line or MARK in line or "kiln-box" in line)


def members(group):
    """How many processes are in groups below it: those of boxes that wait. And groups that are of no
    box: the other ones may be kept empty for the next use."""
    below = [name for name in os.listdir(group) if os.path.isdir(os.path.join(group, name))]
    return (sum(len(lines(os.path.join(group, name, "cgroup.procs"))) for name in below),
            [name for name in below if not re.fullmatch(r"b\d+", name)])


def cgroups(server):
    """Those of our spawners, and how many processes are in the leaves that they keep."""
    pids = {str(p) for p in server.tree()}
    found = []
    for where, folders, _ in os.walk("/sys/fs/cgroup"):
        for name in folders:
            parts = name.split(".")
            if MARK in name or (parts[0] == "kiln-sandbox" and len(parts) > 2 and parts[2] in pids):
                path = os.path.join(where, name)
                found.append((path, members(path)))
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
    return {"processes": processes(), "mounts": mounts(server), "cgroups": cgroups(server), "ipc": ipc(),
            "keys": keys(), "files": files(server), "tree": tree(server), "sockets": sockets(),
            "locks": locks()}
