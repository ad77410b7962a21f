# SPDX-License-Identifier: Apache-2.0
"""A place like a container's: namespaces of its own around an ordinary user under a filter like the
one that runtimes have by default, so that it cannot make namespaces itself, and with a bound on that
user's processes, in all places together. What is executed is process 1 there, and whatever it leaves
ends with it.

As a program, inside: python3 place.py COMMAND..., installs the filter and becomes the command."""

import ctypes
import os
import struct
import subprocess
import sys

import wire

USER = 64779
SECRET = "/secret/key"  # in the place; readable by its user, as a mounted Secret is

# Root of the place: what a language's image has, two writable folders, and a secret.
MAKE = r"""
PATH=/usr/sbin:/usr/bin:/sbin:/bin
set -e
root=$1; tree=$2; build=$3; user=$4; more=$5; shift 5
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs "$root"
for part in /bin /sbin /lib /lib32 /lib64 /usr /etc /opt /dev; do
	if [ -L "$part" ]; then cp -d "$part" "$root$part"
	elif [ -e "$part" ]; then mkdir -p "$root$part"; mount --rbind "$part" "$root$part"; fi
done
mkdir -p "$root/proc" "$root/box" "$root/tmp" "$root/secret"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=1777,size=256m tmpfs "$root/box"
mount -t tmpfs -o mode=1777,size=256m tmpfs "$root/tmp"
for part in "$tree" "$build" $more; do mkdir -p "$root$part"; mount --bind "$part" "$root$part"; done
echo the-key-of-this-runner > "$root/secret/key"
chown "$user" "$root/secret/key"; chmod 400 "$root/secret/key"
exec chroot "$root" prlimit --nproc=512 setpriv --reuid "$user" --regid "$user" --clear-groups --no-new-privs \
	--bounding-set=-all --pdeathsig KILL "$@"
"""

NAMESPACES = 0x7E020000  # CLONE_NEW...
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
EPERM, ENOSYS = 1, 38
DENIED = {  # by number on x86-64, aarch64
    "x86_64": {"mount": 165, "unshare": 272, "setns": 308, "clone3": 435, "clone": 56},
    "aarch64": {"mount": 40, "unshare": 97, "setns": 268, "clone3": 435, "clone": 220},
}


def prefix(root, build, net=True, more=""):
    """What is put before a command line."""
    return ["unshare", "--mount", "--pid", "--fork", *(["--net"] if net else []), "--ipc", "--kill-child",
            "sh", "-c", MAKE, "place", str(root), wire.ROOT, build, str(USER), more,
            sys.executable, os.path.abspath(__file__)]


def reason_not(build):
    """Why there can be no such place here, or None."""
    if os.geteuid() != 0:
        return "needs root, to make a place like a container's"
    become = ["setpriv", "--reuid", str(USER), "--regid", str(USER), "--clear-groups"]
    for name in ("kiln-runner", "kiln-sandbox"):
        for path in (os.path.join(build, name), os.path.join(build, "src", name)):
            if os.path.exists(path) and subprocess.run([*become, "test", "-x", path],
                                                       check=False).returncode:
                return f"{path} cannot be reached by other users"
    return None


def install_filter():
    numbers = DENIED[os.uname().machine]
    program = [(0x20, 0, 0, 0)]  # the number of the call
    for name in ("mount", "unshare", "setns", "clone3"):
        program += [(0x15, 0, 1, numbers[name]),
                    (0x06, 0, 0, ERRNO | (ENOSYS if name == "clone3" else EPERM))]
    program += [(0x15, 0, 3, numbers["clone"]), (0x20, 0, 0, 16), (0x45, 0, 1, NAMESPACES),
                (0x06, 0, 0, ERRNO | EPERM), (0x06, 0, 0, ALLOW)]
    code = b"".join(struct.pack("<HBBI", *one) for one in program)
    held = ctypes.create_string_buffer(code)
    head = struct.pack("@HP", len(program), ctypes.addressof(held))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.c_char_p(head), 0, 0):
        raise OSError(ctypes.get_errno(), "could not install the filter")


if __name__ == "__main__":
    install_filter()
    os.execv(sys.argv[1], sys.argv[1:])
