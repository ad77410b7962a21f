# SPDX-License-Identifier: Apache-2.0
"""Programs that want out: to the host, to other processes, into the kernel, through the compiler."""

from attack import BOMB, DONE, ENDS, STOPPED, attack, c, java, reads, refused

SECRET = "root:"  # what /etc/shadow begins with on the host

KERNEL = [refused("kernel", name, expression) for name, expression in (
    ("ptrace-init", "ptrace(PTRACE_SEIZE, 1, 0, 0)"),
    ("ptrace-me", "ptrace(PTRACE_TRACEME, 0, 0, 0)"),
    ("process-vm-readv", "syscall(SYS_process_vm_readv, 1, NULL, 0ul, NULL, 0ul, 0ul)"),
    ("process-vm-writev", "syscall(SYS_process_vm_writev, 1, NULL, 0ul, NULL, 0ul, 0ul)"),
    ("kcmp", "syscall(SYS_kcmp, getpid(), 1, 0, 0, 0)"),
    ("chroot", 'chroot("/tmp")'),
    ("mount-tmpfs", 'mount("x", "/tmp", "tmpfs", 0, NULL)'),
    ("mount-bind", 'mount("/", "/tmp", NULL, MS_BIND | MS_REC, NULL)'),
    ("mount-remount", 'mount(NULL, "/usr", NULL, MS_REMOUNT | MS_BIND, NULL)'),
    ("umount", 'umount2("/proc", MNT_DETACH)'),
    ("pivot-root", 'syscall(SYS_pivot_root, "/", "/tmp")'),
    ("fsopen", 'syscall(SYS_fsopen, "tmpfs", 0)'),
    ("open-tree", 'syscall(SYS_open_tree, AT_FDCWD, "/", 1)'),
    ("mount-setattr", 'syscall(SYS_mount_setattr, AT_FDCWD, "/", 0, big, 32)'),
    ("unshare-user", "unshare(CLONE_NEWUSER)"),
    ("unshare-net", "unshare(CLONE_NEWNET)"),
    ("unshare-all", "unshare(CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWCGROUP)"),
    ("clone-user", "syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0)"),
    ("clone3-user", "syscall(SYS_clone3, (uint64_t[11]){CLONE_NEWUSER, 0, 0, 0, SIGCHLD}, 88)"),
    ("setns-pid1", 'setns(open("/proc/1/ns/mnt", O_RDONLY), 0)'),
    ("setns-own", 'setns(open("/proc/self/ns/user", O_RDONLY), 0)'),
    ("open-by-handle", "syscall(SYS_open_by_handle_at, AT_FDCWD, big, O_RDONLY)"),
    ("name-to-handle", 'syscall(SYS_name_to_handle_at, AT_FDCWD, "/", (int[40]){128}, big, 0)'),
    ("keyctl-session", "syscall(SYS_keyctl, 1, \"kiln-hostile\", 0, 0, 0)"),
    ("add-key", 'syscall(SYS_add_key, "user", "kiln-hostile", "x", 1ul, -4)'),
    ("request-key", 'syscall(SYS_request_key, "user", "kiln-hostile", NULL, -4)'),
    ("io-uring", "syscall(SYS_io_uring_setup, 8, big)"),
    ("userfaultfd", "syscall(SYS_userfaultfd, 1)"),
    ("bpf", "syscall(SYS_bpf, 0, big, 72)"),
    ("perf", "syscall(SYS_perf_event_open, big, 0, -1, -1, 0)"),
    ("fanotify", "syscall(SYS_fanotify_init, 0, 0)"),
    ("inotify", "syscall(SYS_inotify_init1, 0)"),
    ("vmsplice", "syscall(SYS_vmsplice, 1, NULL, 0ul, 0)"),
    ("memfd-secret", "syscall(SYS_memfd_secret, 0)"),
    ("kernel-log", "syscall(SYS_syslog, 3, big, 4096)"),
    ("reboot", "syscall(SYS_reboot, 0xfee1dead, 672274793, 0x89abcdef, 0)"),
    ("kexec", "syscall(SYS_kexec_load, 0, 0, NULL, 0)"),
    ("load-module", 'syscall(SYS_init_module, big, 100, "")'),
    ("swapon", 'syscall(SYS_swapon, "/box/f", 0)'),
    ("acct", "syscall(SYS_acct, NULL)"),
    ("set-time", "syscall(SYS_settimeofday, (long[2]){0, 0}, NULL)"),
    ("set-hostname", 'sethostname("x", 1)'),
    ("iopl", "syscall(SYS_iopl, 3)"),
    ("ioperm", "syscall(SYS_ioperm, 0x80, 1, 1)"),
    ("modify-ldt", "syscall(SYS_modify_ldt, 0, big, 16)"),
    ("personality", "personality(ADDR_NO_RANDOMIZE)"),
    ("tiocsti", 'ioctl(0, TIOCSTI, "x")'),
    ("lease", 'fcntl(open("/usr/bin/env", O_RDONLY), F_SETLEASE, F_RDLCK)'),
    ("notify", 'fcntl(open("/usr/bin", O_RDONLY), F_NOTIFY, 1)'),
    ("packet", "socket(17, SOCK_RAW, 0x300)"),
    ("raw-ip", "socket(AF_INET, SOCK_RAW, 1)"),
    ("alg", "socket(38, SOCK_SEQPACKET, 0)"),
    ("vsock", "socket(40, SOCK_STREAM, 0)"),
    ("vsock-pair", "socketpair(40, SOCK_STREAM, 0, (int[2]){0})"),
    ("netlink-netfilter", "socket(16, SOCK_RAW, 12)"),
    ("netlink-audit", "socket(16, SOCK_RAW, 9)"),
    ("netlink-uevent", "socket(16, SOCK_RAW, 15)"),
    ("bluetooth", "socket(31, SOCK_RAW, 1)"),
    ("can", "socket(29, SOCK_RAW, 1)"),
    ("unknown-call", "syscall(1000)"),
    ("setuid-root", "setresuid(0, 0, 0)"),
    ("setgroups", "syscall(SYS_setgroups, 1, (int[1]){0})"),
    ("capset",
    "syscall(SYS_capset, (unsigned[2]){0x20080522, 0}, (unsigned[6]){~0u, ~0u, ~0u, ~0u, ~0u, ~0u})"),
    ("prlimit-init", "syscall(SYS_prlimit64, 1, 7, NULL, big)"),
    ("no-new-privs-off", "prctl(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0)"),
    ("mknod", 'mknod("/tmp/kiln-hostile-mem", S_IFCHR | 0666, (1 << 8) | 1)'),
    ("open-init-mem", 'open("/proc/1/mem", O_RDWR)'),
    ("open-kcore", 'open("/proc/kcore", O_RDONLY)'),
    ("open-kmsg", 'open("/dev/kmsg", O_RDONLY)'),
    ("open-sysrq", 'open("/proc/sysrq-trigger", O_WRONLY)'),
    ("open-core-pattern", 'open("/proc/sys/kernel/core_pattern", O_WRONLY)'),
    ("open-usr", 'open("/usr/bin/env", O_WRONLY)'),
    ("chmod-usr", 'chmod("/usr/bin/env", 04777)'),
    ("oom-score", '(write(open("/proc/self/oom_score_adj", O_WRONLY), "-1000", 5) < 0 ? -1 : 0)'),
    ("posix-queue", 'syscall(SYS_mq_open, "kiln-hostile", O_CREAT | O_RDWR, 0600, NULL)'),
    ("uid-map", '(write(open("/proc/self/uid_map", O_WRONLY), "0 0 1", 5) < 0 ? -1 : 0)'),
)] + [
    attack("kernel", "int80", "c", c('long r; __asm__ volatile("int $0x80" : "=a"(r) : "a"(20L) : '
           '"memory"); printf("ESCAPED %ld\\n", r);'),
           "signalled"),
    attack("kernel", "int80-mount", "c", c('long r; puts("try"); fflush(stdout); __asm__ volatile("int '
           '$0x80" : "=a"(r) : "a"(21L), "b"(0), "c"(0) : "memory"); printf("ESCAPED %ld\\n", r);'),
           "signalled", "try"),
    attack("kernel", "x32", "c", c(
           'long r = syscall(0x40000000 + SYS_getpid); printf("ESCAPED %ld\\n", r);'), "signalled"),
    attack("kernel", "every-number", "python",
           "import ctypes, os\nlibc = ctypes.CDLL(None)\n"
           "skip = {0, 1, 3, 15, 34, 35, 57, 58, 60, 61, 62, 130, 219, 231, 234, 247, 200, 129, 297, 23, "
           "270, 7, 271, 281, 232, 441, 202, 56, 436, 424}\n"
           "pid = os.fork()\nif pid == 0:\n    for n in range(0, 480):\n"
           "        if n not in skip: libc.syscall(n, 0, 0, 0, 0, 0, 0)\n    os._exit(0)\n"
           "os.waitpid(pid, 0)\nprint('survived')\n", DONE | STOPPED, limits=BOMB | {"wall_ms": 4000}),
]

FORBIDDEN = [reads("escape", "read-" + name, path) for name, path in (
    ("shadow", "/etc/shadow"), ("shadow-by-proc", "/proc/self/root/etc/shadow"), ("shadow-by-init",
    "/proc/1/root/etc/shadow"),
    ("shadow-by-dots", "../" * 40 + "etc/shadow"), ("ssh", "/root/.ssh/id_rsa"), ("init-environ",
    "/proc/1/environ"),
    ("init-maps", "/proc/1/maps"), ("init-exe", "/proc/1/exe"), ("init-fd", "/proc/1/fd/0"), ("disk",
    "/dev/vda"), ("mem", "/dev/mem"),
    ("docker-socket", "/var/run/docker.sock"), ("cgroups", "/sys/fs/cgroup/cgroup.procs"), (
    "kallsyms-of-host", "/sys/kernel/notes"),
    ("hosts-home", "/home"), ("data-folder", "/var/lib/kiln/kiln.db"), ("token",
    "/var/run/secrets/kubernetes.io/serviceaccount/token"),
)]
ESCAPE = FORBIDDEN + [
    attack("escape", "processes-of-others", "python",
           "import os\nmine = [int(p) for p in os.listdir('/proc') if p.isdigit()]\n"
           "print('ESCAPED' if len(mine) > 3 else 'alone', mine)\n", "ok", "alone"),
    attack("escape", "environment", "bash",
           "env | grep -iE 'kiln|secret|token|asan|sudo|ssh' && echo ESCAPED; echo end", "ok", "end"),
    attack("escape", "descriptors", "python",
           "import os\nfor n in range(3, 4096):\n"
           "    try: print('ESCAPED', n, os.readlink(f'/proc/self/fd/{n}'), os.fstat(n))\n"
           "    except OSError: pass\nprint('end')\n", "ok", "end"),
    attack("escape", "write-own-text", "c", c(
           'int fd = open("/proc/self/exe", O_RDWR); said("own exe", fd);'), "ok",
           "own exe refused: ETXTBSY"),
    attack("escape", "own-memory", "c", c('int fd = open("/proc/self/mem", O_RDWR); long x = 5, y = 6; '
           'if (fd >= 0) pwrite(fd, &y, 8, (off_t)&x); puts("own memory only"); '
           'if (pread(fd, big, 8, (off_t)0xffffffff81000000) > 0) puts("ESCAPED");'), "ok",
           "own memory only"),
    attack("escape", "no-set-id", "bash",
           "for f in $(find / -xdev -perm /6000 -type f 2>/dev/null | head -50); do echo found $f; done; "
           "for s in su sudo mount passwd; do p=$(command -v $s) && echo x | timeout 1 $p -c id 2>&1 | "
           "grep -q 'uid=0' "
           "&& echo ESCAPED; done; echo end", {"ok", "time_limit"}, limits=ENDS),
    attack("escape", "make-set-id", "bash",
           "cp /usr/bin/id i; chmod 6755 i; ./i | grep -q 'uid=0\\|euid=0' && echo ESCAPED; echo end",
           "ok", "end"),
    attack("escape", "core-dump", "bash",
           "ulimit -c unlimited; bash -c 'kill -SEGV $$'; ls | grep core && echo ESCAPED; echo end", "ok",
           "end"),
    attack("escape", "crash-with-core", "c", c('struct rlimit r = {RLIM_INFINITY, RLIM_INFINITY}; '
           'setrlimit(RLIMIT_CORE, &r); prctl(PR_SET_DUMPABLE, 1); abort();'), "signalled"),
    attack("escape", "host-name", "python",
           "import socket\nname = socket.gethostname()\nprint('name is', name)\n", "ok", "name is"),
    attack("escape", "interfaces", "python",
           "import socket\nn = [i[1] for i in socket.if_nameindex()]\n"
           "print('ESCAPED' if set(n) - {'lo'} else 'only lo', n)\n", "ok", "only lo"),
    attack("escape", "connect-out", "python",
           "import socket\nfor a in ('1.1.1.1', '169.254.169.254', '10.0.0.1', '192.168.0.1', "
           "'172.17.0.1'):\n    s = socket.socket(); s.settimeout(1)\n"
           "    try: s.connect((a, 80)); print('ESCAPED', a)\n"
           "    except OSError as e: print('refused:', a, e)\n", "ok", "refused: 1.1.1.1"),
    attack("escape", "udp-out", "python",
           "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
           "try: s.sendto(b'x', ('8.8.8.8', 53)); print('ESCAPED')\n"
           "except OSError as e: print('refused:', e)\n", "ok", "refused:"),
    attack("escape", "name-lookup", "javascript",
           "require('dns').lookup('example.com', (e, a) => console.log(e ? 'refused: ' + e.code : "
           "'ESCAPED ' + a));", {"ok"}, "refused:"),
    attack("escape", "hosts-address-java", "java", java(
        "for (var i : Collections.list(java.net.NetworkInterface.getNetworkInterfaces())) "
        "System.out.println((i.getName().equals(\"lo\") ? \"only \" : \"ESCAPED \") + i.getName());"),
        "ok", "only lo"),
    attack("escape", "kill-by-java", "java", java(
        "ProcessHandle.allProcesses().filter(p -> p.pid() != ProcessHandle.current().pid()).forEach(p -> "
        "{ try { p.destroyForcibly(); } catch (Exception e) {} });"
        " System.out.println(ProcessHandle.allProcesses().count() > 3 ? \"ESCAPED\" : \"alone\");"), "ok",
        "alone"),
    attack("escape", "shadow-java", "java", java(
        "try { System.out.println(\"ESCAPED \" + Files.readString(Path.of(\"/etc/shadow\"))); } "
        "catch (IOException e) { System.out.println(\"refused: \" + e); }"), "ok", "refused:"),
    attack("escape", "shadow-javascript", "javascript",
           "for (const p of ['/etc/shadow', '/proc/1/environ', '/root']) { try { "
           "require('fs').readdirSync(p); console.log('ESCAPED') } "
           "catch (e) { console.log('refused: ' + e.code) } }",
           "ok", "refused:"),
    attack("escape", "inspector", "javascript", "require('inspector').open(9229, '0.0.0.0'); "
           "process.kill(process.pid, 'SIGUSR1'); setTimeout(() => { console.log('end'); "
           "process.exit(0) }, 200);", DONE, limits=ENDS),
    attack("escape", "links", "bash",
           "for p in /etc/shadow /etc/passwd / /proc/1/root /dev/mem; do ln -s $p l${p//\\//_}; done; "
           "ln /usr/bin/env hard 2>/dev/null && echo ESCAPED; "
           "cat l_etc_shadow 2>/dev/null && echo ESCAPED; echo end", "ok", "end"),
    attack("escape", "swap-race", "c", c(
        'mkdir("d", 0700); symlink("/etc", "l"); mkdir("t", 0700); '
        'if (fork() == 0) for (;;) { rename("d", "t/x"); rename("l", "d"); rename("d", "l"); '
        'rename("t/x", "d"); }'
        ' for (int i = 0; i < 20000; i++) { int fd = open("d/shadow", O_RDONLY); '
        'if (fd >= 0) { puts("ESCAPED"); break; } } puts("end");'), "ok", "end"),
    attack("escape", "root-by-fd", "c", c('int fd = open("/", O_RDONLY | O_DIRECTORY); for (int i = 0; '
           'i < 64; i++) fd = openat(fd, "..", O_RDONLY | O_DIRECTORY); '
           'said("shadow", openat(fd, "etc/shadow", O_RDONLY));'),
           "ok", "shadow refused"),
    attack("escape", "tracing", "bash", "ls /sys/kernel/debug /sys/kernel/tracing /sys/fs/bpf "
           "2>/dev/null | grep . && echo ESCAPED; echo end", "ok", "end"),
    attack("escape", "sysctl", "bash",
           "exec 2>/dev/null; for f in /proc/sys/kernel/{core_pattern,hostname,pid_max} "
           "/proc/sys/vm/overcommit_memory; do (echo 1 > $f) && echo ESCAPED $f; done; echo end", "ok",
           "end"),
    attack("escape", "huge-arguments", "python",
           "import sys\nprint(len(sys.argv), sum(map(len, sys.argv)) > 700000)\n", "ok", "241 True", args=(
           "x" * 3000,) * 240),
    attack("escape", "huge-environment", "python",
           "import os\ntry: os.execve('/bin/true', ['x'] * 1000, {f'V{i}': 'x' * 100000 for i in "
           "range(100)}); print('ESCAPED')\nexcept OSError as e: print('refused:', e)\n",
           {"ok", "memory_limit"}, limits=ENDS),
    attack("escape", "argument-injection", "bash", "printf '[%s]' \"$@\"", "ok",
           "[$(id)][;id][--][\n]['\"`id`]", hides=("uid=",),
           args=("$(id)", ";id", "--", "\n", "'\"`id`")),
]

EMPTY = "int main(void) { return 0; }\n"
STOPS = {"compile_error"}
BUILT = STOPS | DONE | STOPPED
MACROS = "#define M1 x+ x+ x+ x+\n" + "".join(
    f"#define M{i} M{i - 1} M{i - 1} M{i - 1} M{i - 1}\n" for i in range(2, 16))


def compiled(name, code, outcome=STOPS, language="c", **kw):
    return attack("compiler", name, language, code, outcome, **kw)


COMPILER = [
    compiled("include-shadow", f'#include "/etc/shadow"\n{EMPTY}', hides=(SECRET,)),
    compiled("include-by-proc", f'#include "/proc/self/root/etc/shadow"\n{EMPTY}', hides=(SECRET,)),
    compiled("include-by-init", f'#include "/proc/1/environ"\n{EMPTY}', hides=("PATH=",)),
    compiled("include-zero", f'#include "/dev/zero"\n{EMPTY}'),
    compiled("include-stdin", f'#include "/dev/stdin"\n{EMPTY}', BUILT),
    compiled("include-data", f'#include "/var/lib/kiln/kiln.db"\n{EMPTY}'),
    compiled("include-itself", f'#include "main.c"\n{EMPTY}'),
    compiled("incbin-shadow", '__asm__(".incbin \\"/etc/shadow\\"");\n' + EMPTY, hides=(SECRET,)),
    compiled("incbin-memory", '__asm__(".incbin \\"/proc/self/mem\\"");\n' + EMPTY, BUILT),
    compiled("assembler-repeat", '__asm__(".rept 1000000000\\n.quad 1\\n.endr");\n' + EMPTY),
    compiled("assembler-space", '__asm__(".data\\n.space 100000000000\\n.text");\n' + EMPTY),
    compiled("macro-bomb", MACROS + "int main(void) { int x = 0; return M15 0; }\n"),
    compiled("huge-array", "char a[1ul << 40] = {1};\n" + EMPTY),
    compiled("huge-binary", "char a[400u << 20] = {1};\n" + EMPTY),
    compiled("huge-bss", "char a[1ul << 31];\nint main(void) { return a[5]; }\n", BUILT),
    compiled("many-warnings", "#warning x\n" * 20000 + EMPTY, BUILT),
    compiled("pragma-output", '#pragma GCC dependency "/etc/shadow"\n' + EMPTY, BUILT, hides=(SECRET,)),
    compiled("unclosed", "int main(void) {" * 5000),
    compiled("cpp-template-depth", "template<int N> struct A { static const int v = A<N + 1>::v; };\n"
             "int main() { return A<0>::v; }\n", language="cpp"),
    compiled("cpp-template-names", "template<class... T> struct L {};\n"
             "template<int N, class... T> struct A : A<N - 1, L<T...>, L<T..., T...>> {};\n"
             "template<class... T> struct A<0, T...> {};\nint main() { A<40, int>::nothing(); }\n",
             language="cpp"),
    compiled("cpp-constexpr-loop", "constexpr int f() { int n = 0; for (;;) n ^= 1; return n; }\n"
             "constexpr int x = f();\nint main() { return x; }\n", language="cpp"),
    compiled("cpp-include-shadow", f'#include "/etc/shadow"\n{EMPTY}', language="cpp", hides=(SECRET,)),
    compiled("cpp-has-include", '#if __has_include("/etc/shadow") || __has_include("/root/.profile") || '
             '__has_include("/var/lib/kiln/kiln.db")\n#error ESCAPED\n#endif\n' + EMPTY, "ok", language="cpp"),
    compiled("cpp-incbin", 'asm(".incbin \\"/proc/self/environ\\"");\n' + EMPTY, BUILT, language="cpp"),
    compiled("cpp-errors", "template<class T> struct A { typename T::" + "x::" * 300 + "y z; };\n" +
             "A<int> a;\n" * 3000 + EMPTY, language="cpp"),
    compiled("long-line", "int main(void) { return 0" + " + 1" * 200000 + "; }\n", BUILT),
    compiled("digraph-of-lines", "#line 1 \"/etc/shadow\"\nint main(void) { return nothing; }\n", hides=(SECRET,)),
    compiled("java-include", "import java.nio.file.*; @interface A {} class Main { static { } "
        "public static void main(String[] a) throws Exception { int x = ; } }", language="java"),
    compiled("java-deep", java("int x = " + "(" * 20000 + "1" + ")" * 20000 + ";"), language="java"),
    compiled("java-huge", "class Main { static int[] a = {" + "1," * 100000 + "1}; }", language="java"),
]

# How one task could speak to another: to leave something, and to find it.
CHANNELS = {
    "tmp": ("open('/tmp/kiln-hostile', 'w').write('x')", "os.path.exists('/tmp/kiln-hostile')"),
    "dev-shm": ("open('/dev/shm/kiln-hostile', 'w').write('x')", "os.path.exists('/dev/shm/kiln-hostile')"),
    "work-folder": ("open('/box/kiln-hostile', 'w').write('x')", "os.path.exists('/box/kiln-hostile')"),
    "abstract-socket": ("keep.bind('\\0kiln-hostile'); keep.listen()",
    "socket.socket(socket.AF_UNIX).connect_ex('\\0kiln-hostile') == 0"),
    "tcp": ("tcp.bind(('127.0.0.1', 4242)); tcp.listen()",
    "socket.socket().connect_ex(('127.0.0.1', 4242)) == 0"),
    "udp": ("udp.bind(('127.0.0.1', 4243))",
            "':1093 ' in open('/proc/net/udp').read()"),
    "unix-path": ("keep.bind('/tmp/kiln-hostile-socket'); keep.listen()",
                  "socket.socket(socket.AF_UNIX).connect_ex('/tmp/kiln-hostile-socket') == 0"),
    "fifo": ("os.mkfifo('/tmp/kiln-hostile-fifo')", "os.path.exists('/tmp/kiln-hostile-fifo')"),
    "open-file": ("leak = open('/tmp/kiln-hostile-open', 'w'); os.unlink('/tmp/kiln-hostile-open')",
                  "any('kiln-hostile-open' in os.readlink(f'/proc/{p}/fd/{n}') for p in os.listdir('/proc') if "
                  "p.isdigit() and os.access(f'/proc/{p}/fd', os.R_OK) for n in os.listdir(f'/proc/{p}/fd') "
                  "if os.path.lexists(f'/proc/{p}/fd/{n}'))"),
    "memory-map": ("keep_map = open('/dev/shm/kiln-hostile-map', 'w+'); keep_map.truncate(4096)",
                   "os.path.exists('/dev/shm/kiln-hostile-map')"),
    "sysv-shm": ("libc.shmget(0x4b494c4e, 4096, 0o1666)", "libc.shmget(0x4b494c4e, 0, 0) >= 0"),
    "sysv-queue": ("libc.msgget(0x4b494c4e, 0o1666)", "libc.msgget(0x4b494c4e, 0) >= 0"),
    "sysv-semaphore": ("libc.semget(0x4b494c4e, 1, 0o1666)", "libc.semget(0x4b494c4e, 0, 0) >= 0"),
    "posix-semaphore": ("libc.sem_open(b'/kiln-hostile', 0o100, 0o666, 1)",
    "libc.sem_open(b'/kiln-hostile', 0) not in (0, None)"),
    "process": ("subprocess.Popen(['/bin/bash', '-c', 'exec -a kiln-hostile-process sleep 60'])",
                "any(b'kiln-hostile-process' in open(f'/proc/{p}/cmdline', 'rb').read() for p in "
                "os.listdir('/proc') if p.isdigit())"),
}
TOOLS = ("import ctypes, os, socket, subprocess, time\nlibc = ctypes.CDLL(None)\n"
         "libc.sem_open.restype = ctypes.c_void_p\n"
         "keep = socket.socket(socket.AF_UNIX)\ntcp = socket.socket()\n"
         "udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n")
LEAVE = "{0}\nprint('left', flush=True)\ntime.sleep({2})\n"
FIND = ("end = time.monotonic() + {2}\nwhile True:\n    if {1}: print('FOUND ESCAPED'); break\n"
        "    if time.monotonic() > end: print('nothing found'); break\n    time.sleep(0.05)\n")


def channel(name, *parts, seconds=0.7):
    leave, find = CHANNELS[name]
    return TOOLS + "".join(p.format(leave, find, seconds) for p in parts)


PAIRS = []
for _name in CHANNELS:
    PAIRS += [attack("pairs", f"{_name}-leave", "python", channel(_name, LEAVE), "ok", "left"),
              attack("pairs", f"{_name}-find", "python", channel(_name, FIND), "ok", "nothing found")]

ATTACKS = KERNEL + ESCAPE + COMPILER + PAIRS
