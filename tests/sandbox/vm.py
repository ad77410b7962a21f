#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The sandbox's tests on cgroup version 2 with all its controllers, in a small virtual machine: where a host
has them on version 1, they cannot be had otherwise.

    vm.py --build FOLDER --payload PATH --kernel FOLDER [--accel tcg|kvm] [NAME...]

The kernel's FOLDER is where a kernel is kept, and fetched to by apt-get where there is none yet: it is not installed.

A Debian kernel and an initial file system made of this host's own programs; nothing is written to a disk.
Verdicts are tested there, times are not: an emulated machine is slow. Output is TAP, that of
test_sandbox.py run as root in the root group, as root in a group with other members, and as an ordinary
user to whom a group was handed down; and that of vm_forks.py. NAMEs are those of test_sandbox.py, or "forks".
"""

import argparse
import ctypes
import glob
import gzip
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
LANGUAGES = os.path.join(HERE, "..", "..", "languages")
PROGRAMS = """/bin/sh /bin/bash /usr/bin/python3 /bin/cp /bin/sleep /bin/cat /bin/ls /bin/true /bin/mkdir /bin/chown
/usr/bin/md5sum /usr/bin/readlink /usr/bin/head /usr/bin/tail /usr/bin/id /usr/bin/env /bin/mount /bin/rm
/usr/bin/seq /usr/bin/yes /usr/bin/wc /usr/bin/sort /bin/chmod /bin/dd /bin/kill /usr/bin/ruby""".split()
SERVER = ("kiln", "kiln-runner", "kiln-sandbox", "kiln-zygote.so", "kiln-zygote-ruby.so")
RUBY = ("/usr/lib/ruby", "/usr/lib/x86_64-linux-gnu/ruby")

INIT = """#!/bin/sh
mount -t proc proc /proc
mkdir -p /sys /dev/shm /tmp /root/new
mount -t devtmpfs dev /dev
# The first root cannot be left by pivot_root(2); one that is mounted over it can.
mount --bind / /root/new
cd /root/new
exec /usr/bin/env -i PATH=/usr/bin:/bin LANG=C.UTF-8 python3 /vm_init.py
"""

VM_INIT = """
import ctypes, fcntl, os, socket, struct, subprocess
libc = ctypes.CDLL(None)

def mount(what, kind, where, options=None):
    os.makedirs(where, exist_ok=True)
    assert libc.mount(what.encode(), where.encode(), kind.encode(), 0, options) == 0, where

assert libc.mount(b".", b"/", None, 8192, None) == 0  # MS_MOVE
os.chroot(".")
os.chdir("/")
mount("proc", "proc", "/proc")
mount("sys", "sysfs", "/sys")
mount("dev", "devtmpfs", "/dev")
mount("shm", "tmpfs", "/dev/shm")
mount("tmp", "tmpfs", "/tmp", b"mode=1777")
mount("cgroup", "cgroup2", "/sys/fs/cgroup")
os.chmod("/", 0o755)

def enter(group):
    with open(f"/sys/fs/cgroup{group}/cgroup.procs", "w") as f:
        f.write("0")

def run(title, user, group):
    print(f"# {title}", flush=True)
    if NAMES != ["forks"]:
        subprocess.run(["python3", "/test_sandbox.py", "--sandbox", "/kiln/kiln-sandbox", "--payload", "/payload",
                        "--as", user, "--limits", "cgroup2", "--untimed", *NAMES], preexec_fn=lambda: enter(group))
    if NAMES in ([], ["forks"]):
        subprocess.run(["python3", "/vm_forks.py", "--kiln", "/kiln/kiln", "--languages", "/kiln/languages",
                        "--as", user], preexec_fn=lambda: enter(group))

# The loopback device, up.
fcntl.ioctl(socket.socket(), 0x8914, struct.pack("16sh14x", b"lo", 1))

with open("/sys/fs/cgroup/cgroup.subtree_control", "w") as f:
    f.write("+memory +pids +cpu")
for name in ("members", "handed-down"):
    os.mkdir(f"/sys/fs/cgroup/{name}")
os.setxattr("/sys/fs/cgroup/members", "trusted.delegate", b"1")
for name in ("", "/cgroup.procs", "/cgroup.subtree_control", "/cgroup.threads"):
    os.chown(f"/sys/fs/cgroup/handed-down{name}", 65534, 65534)
os.setxattr("/sys/fs/cgroup/handed-down", "user.delegate", b"1")
print("kiln-vm: begin", flush=True)
run("root in the root group", "root", "/")
run("root in a group with other members", "root", "/members")
run("an ordinary user with a group of its own", "nobody", "/handed-down")
print("kiln-vm: end", flush=True)
libc.sync()
libc.reboot(0x4321fedc)
"""


class Archive:
    """An initial file system: cpio(5), "newc"."""

    def __init__(self, out):
        self.out, self.ino, self.seen = out, 0, set()

    def put(self, name, mode, data=b"", device=(0, 0)):
        name = name.lstrip("/")
        if name in self.seen:
            return
        self.seen.add(name)
        if "/" in name:
            self.folder(os.path.dirname(name))
        self.ino += 1
        fields = [self.ino, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(name) + 1, 0]
        head = b"070701" + b"".join(b"%08X" % f for f in fields) + name.encode() + b"\0"
        self.out.write(head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4))

    def folder(self, name):
        self.put(name, stat.S_IFDIR | 0o755)

    def file(self, path, name=None):
        """With what it links to, so that a path may lead through links."""
        name = name or path
        with open(path, "rb") as f:
            self.put(name, stat.S_IFREG | (os.stat(path).st_mode & 0o777), f.read())

    def program(self, path, name=None):
        self.file(path, name)
        done = subprocess.run(["ldd", path], capture_output=True, text=True, check=False)
        for library in re.findall(r"(/\S+) \(", done.stdout):
            self.file(library)

    def close(self):
        self.put("TRAILER!!!", 0)


def make_initrd(path, options):
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    with gzip.open(path, "wb", compresslevel=1) as out:
        archive = Archive(out)
        for name in ("proc", "sys", "dev", "tmp", "root/new", "box", "mnt", "var"):
            archive.folder(name)
        archive.put("dev/console", stat.S_IFCHR | 0o600, device=(5, 1))
        archive.put("init", stat.S_IFREG | 0o755, INIT.encode())
        archive.put("vm_init.py", stat.S_IFREG | 0o644, f"NAMES = {options.names!r}\n{VM_INIT}".encode())
        for name in SERVER:
            archive.program(os.path.join(options.build, name), f"kiln/{name}")
        for where, _, names in os.walk(LANGUAGES):
            for name in names:
                if where != LANGUAGES or name in ("python.yaml", "ruby.yaml"):
                    archive.file(os.path.join(where, name),
                                 os.path.normpath(os.path.join("kiln/languages", os.path.relpath(where, LANGUAGES), name)))
        archive.file(os.path.join(HERE, "vm_forks.py"), "vm_forks.py")
        archive.file(options.payload, "payload")
        archive.file(os.path.join(HERE, "test_sandbox.py"), "test_sandbox.py")
        archive.put("etc/hostname", stat.S_IFREG | 0o644, b"vm\n")
        archive.put("etc/passwd", stat.S_IFREG | 0o644, b"root:x:0:0::/root:/bin/sh\n")
        for program in PROGRAMS:
            archive.program(program)
        for where, _, names in [found for folder in RUBY for found in os.walk(folder)]:
            for name in names:
                if os.path.isfile(os.path.join(where, name)):
                    archive.program(os.path.join(where, name))
        for where, folders, names in os.walk(f"/usr/lib/{version}"):
            folders[:] = [f for f in folders if f not in ("test", "idlelib", "lib2to3", "ensurepip", "pydoc_data",
                                                          "tkinter", "unittest", "distutils", "site-packages")]
            for name in names:
                if os.path.isfile(os.path.join(where, name)):
                    archive.file(os.path.join(where, name))
                if name.endswith(".so"):
                    archive.program(os.path.join(where, name))
        archive.close()


def find_kernel(folder):
    """Debian's for virtual machines, unpacked; None where it cannot be had."""
    def found():
        return sorted(glob.glob(os.path.join(folder, "boot", "vmlinuz-*")))

    if found():
        return found()[-1]
    os.makedirs(folder, exist_ok=True)
    told = subprocess.run(["apt-cache", "depends", "linux-image-cloud-amd64"], capture_output=True, text=True,
                          check=False).stdout
    name = re.search(r"Depends: (linux-image-\S+)", told)
    with tempfile.TemporaryDirectory() as at:
        if not name or subprocess.run(["apt-get", "download", "-q", name.group(1)], cwd=at, check=False,
                                      stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode != 0:
            return None
        for package in glob.glob(os.path.join(at, "*.deb")):
            subprocess.run(["dpkg-deb", "-x", package, folder], check=True)
    return found()[-1] if found() else None


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--build", required=True)
    p.add_argument("--payload", required=True)
    p.add_argument("--kernel", required=True)
    p.add_argument("--accel", default="tcg")
    p.add_argument("names", nargs="*")
    options = p.parse_args()
    qemu = shutil.which("qemu-system-x86_64")
    kernel = find_kernel(options.kernel)
    if not qemu or not kernel:
        print(f"1..0 # SKIP needs {'a kernel' if qemu else 'qemu-system-x86_64'}")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        initrd = os.path.join(folder, "initrd")
        make_initrd(initrd, options)
        argv = [qemu, "-accel", options.accel, "-cpu", "max", "-smp", "2", "-m", "1500", "-nographic", "-no-reboot",
                "-nodefaults", "-serial", "stdio", "-kernel", kernel, "-initrd", initrd,
                "-append", "console=ttyS0 quiet panic=-1 loglevel=3 mitigations=off random.trust_cpu=on"]
        # It ends with us, however that is: PR_SET_PDEATHSIG.
        die = lambda: ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)
        return show(subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                     stderr=subprocess.STDOUT, preexec_fn=die))


def show(vm):
    """Its tests as ours, numbered through."""
    number = bad = 0
    begun = ended = False
    part = ""
    for line in vm.stdout:
        line = line.decode(errors="replace").rstrip()
        begun, ended = begun or "kiln-vm: begin" in line, ended or "kiln-vm: end" in line
        if line.startswith("# "):
            part = line[2:] if line[2:6] in ("root", "an o") else part
            print(line, flush=True)
        found = re.match(r"(not )?ok \d+ - (.*)", line)
        if found:
            number += 1
            bad += bool(found.group(1))
            print(f"{found.group(1) or ''}ok {number} - {part}: {found.group(2)}", flush=True)
        elif not begun or os.environ.get("KILN_VM_DEBUG"):
            print(f"# {line}", flush=True)
    vm.wait()
    if not ended:
        print("Bail out! the machine ended early")
        return 1
    print(f"1..{number}")
    return 1 if bad or number == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
