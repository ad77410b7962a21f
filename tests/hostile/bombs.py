# SPDX-License-Identifier: Apache-2.0
"""Programs that want more of something than they may have: processes, memory, output, time, files."""

from attack import BOMB, DONE, MIB, STOPPED, attack, c, java

ENDED = STOPPED | DONE
MEMORY = BOMB | {"wall_ms": 5000, "cpu_ms": 3000}
GROWN = {"memory_limit", "time_limit"}  # on the lowest rung the clock may be first
JAVA = {"wall_ms": 3000, "cpu_ms": 2500, "memory_bytes": 256 * MIB, "processes": 64}
NODE = {"wall_ms": 2500, "cpu_ms": 2000, "memory_bytes": 128 * MIB, "processes": 64}

PROCESSES = [
    attack("processes", "fork-bomb-c", "c", c("for (;;) fork();"), STOPPED, limits=BOMB),
    attack("processes", "fork-bomb-python", "python",
           "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass\n", STOPPED, limits=BOMB),
    attack("processes", "fork-bomb-bash", "bash", ":(){ :|:& };:\nwait; while :; do : & done", ENDED,
           limits=BOMB),
    attack("processes", "fork-bomb-javascript", "javascript",
           "const cp = require('child_process');\nfor (;;) { try { cp.spawn(process.execPath, [__filename])"
           ".on('error', () => {}); } catch (e) {} }", ENDED, limits=NODE),
    attack("processes", "fork-bomb-java", "java", java(
        "while (true) { try { new ProcessBuilder(\"/bin/sleep\", \"60\").start(); } "
        "catch (IOException e) {} }"),
        ENDED, limits=JAVA),
    attack("processes", "vfork-bomb", "c", c("for (;;) if (vfork() == 0) _exit(0);"), STOPPED, limits=BOMB),
    attack("processes", "exec-chain", "c", c('execv("/proc/self/exe", argv); puts("no exec");'), STOPPED,
           limits=BOMB),
    attack("processes", "thread-bomb-c", "c", c(
        "pthread_t t; for (;;) pthread_create(&t, NULL, run, NULL);",
        "static void *run(void *a) { for (;;) pause(); return a; }"), STOPPED, limits=BOMB),
    attack("processes", "thread-bomb-python", "python",
           "import threading, time\nn = 0\nwhile True:\n    try:\n"
           "        threading.Thread(target=time.sleep, args=(60,), "
           "daemon=True).start()\n        n += 1\n        assert n < 32, 'ESCAPED'\n"
           "    except RuntimeError:\n"
           "        time.sleep(0.01)\n", STOPPED, limits=BOMB),
    attack("processes", "thread-bomb-java", "java", java(
        "while (true) { try { new Thread(() -> { try { Thread.sleep(60000); } catch (Exception e) {} "
        "}).start(); }"
        " catch (Throwable e) {} }"), ENDED, limits=JAVA),
    attack("processes", "zombies", "python",
           "import os, time\nn = 0\ntry:\n    while n < 1000:\n        if os.fork() == 0: os._exit(0)\n"
           "        n += 1\n"
           "    print('ESCAPED', n)\nexcept OSError as e: print('refused:', n)\n", "ok", "refused:",
           limits=BOMB | {"wall_ms": 5000}),
    attack("processes", "double-fork", "python",
           "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n"
           "        while True: time.sleep(1)\n"
           "    os._exit(0)\nos.wait()\nprint('gone', flush=True)\n", "ok", "gone",
           limits=BOMB | {"wall_ms": 5000}),
    attack("processes", "orphan-holds-pipe", "bash", "(sleep 60) & disown\necho gone", "ok", "gone",
           limits=BOMB | {"wall_ms": 5000}),
    attack("processes", "orphan-writes-on", "c", c(
        'if (fork() == 0) { setsid(); for (;;) { write(1, "late\\n", 5); usleep(10000); } } '
        'usleep(50000); write(1, "gone\\n", 5);'),
        "ok", "gone", limits=BOMB | {"wall_ms": 5000}),
    attack("processes", "nohup", "bash",
           "trap '' HUP TERM INT QUIT\nnohup setsid sleep 60 >/dev/null 2>&1 &\necho gone",
           "ok", "gone", limits=BOMB | {"wall_ms": 5000}),
    attack("processes", "fork-relay", "c", c(
        'for (;;) { pid_t p = fork(); if (p > 0) _exit(0); if (p == 0) setsid(); }'), ENDED, limits=BOMB),
    attack("processes", "stop-self", "c", c("raise(SIGSTOP); for (;;) pause();"), "time_limit", limits=BOMB),
    attack("processes", "stop-group", "bash", "kill -STOP 0; sleep 60", "time_limit", limits=BOMB),
    attack("processes", "stop-everyone", "c", c('kill(-1, SIGSTOP); raise(SIGSTOP); for (;;) pause();'),
           "time_limit", limits=BOMB),
    attack("processes", "kill-everyone", "c", c(
           'int n = 0; for (int s = 1; s < 65; s++) if (s != SIGSTOP && s != SIGKILL) '
           '{ signal(s, SIG_IGN); n += kill(-1, s) == 0; } puts("still here"); kill(-1, SIGKILL); '
           'puts("after");'),
           {"ok", "signalled"}, "still here"),
    attack("processes", "kill-init", "c", c(
        'for (int s = 1; s < 65; s++) kill(1, s); usleep(100000); puts("init lives");'), "ok", "init lives"),
    attack("processes", "kill-init-bash", "bash", "kill -KILL 1; kill -STOP 1; sleep 0.1; echo lives",
           "ok", "lives"),
    attack("processes", "kill-parent", "python",
           "import os, signal, time\nfor s in (9, 15, 19, 2):\n    try: os.kill(os.getppid(), s)\n"
           "    except OSError as e: print(e)\n"
           "time.sleep(0.1)\nprint('lives')\n", "ok", "lives"),
    attack("processes", "kill-all-pids", "c", c(
        'for (int p = 1; p < 70000; p++) if (p != getpid()) kill(p, SIGKILL); puts("lives");'), "ok",
        "lives"),
]

CODE = ("for (;;) { char *p = %s; if (p == MAP_FAILED || !p) { usleep(1000); continue; } "
        "memset(p, 1, 1 << 20); }")
MEMORY_BOMBS = [
    attack("memory", "heap", "c", c(CODE % "malloc(1 << 20)"), GROWN, limits=MEMORY),
    attack("memory", "mmap-private", "c", c(CODE % "mmap(NULL, 1 << 20, 3, MAP_PRIVATE | MAP_ANONYMOUS, "
           "-1, 0)"), GROWN, limits=MEMORY),
    attack("memory", "mmap-shared", "c", c(CODE % "mmap(NULL, 1 << 20, 3, MAP_SHARED | MAP_ANONYMOUS, "
           "-1, 0)"), GROWN, limits=MEMORY),
    attack("memory", "mmap-populate", "c", c(
        "for (;;) mmap(NULL, 8 << 20, 3, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);"), GROWN,
           limits=MEMORY),
    attack("memory", "brk", "c", c(
           "for (;;) { char *p = sbrk(1 << 20); if (p != (void *)-1) memset(p, 1, 1 << 20); }"), GROWN,
           limits=MEMORY),
    attack("memory", "memfd", "c", c(
        'int fd = memfd_create("x", 0); for (;;) write(fd, big, sizeof big);'), GROWN,
           limits=MEMORY | {"file_bytes": 1 << 30}),
    attack("memory", "stack", "c", c("return down(1);",
           "__attribute__((noinline)) static int down(int n) { volatile char b[4096]; "
           "memset((char *)b, n, sizeof b); return down(n + 1) + b[7]; }"),
           {"signalled", "memory_limit"}, limits=MEMORY),
    attack("memory", "thread-stacks", "c", c(
           "pthread_t t; for (;;) { pthread_create(&t, NULL, run, NULL); usleep(1000); }",
           "static void *run(void *a) { char b[6 << 20]; memset(b, 1, sizeof b); *(volatile char *)b; "
           "pause(); return a; }"),
           GROWN, limits=MEMORY),
    attack("memory", "children", "python",
           "import os, time\nfor i in range(20):\n    if os.fork() == 0:\n"
           "        x = bytearray(b'x') * (12 << 20)\n        time.sleep(60)\n"
           "time.sleep(60)\n", GROWN, limits=MEMORY),
    attack("memory", "tmpfs", "c", c(
        'int n = 0; char name[64]; for (int i = 0; i < 1000; '
        'i++) { snprintf(name, 64, "/tmp/kiln-hostile-%d", i); '
        'int fd = open(name, O_CREAT | O_RDWR, 0600);'
        ' for (int k = 0; k < 16; k++) n += write(fd, big, sizeof big) > 0; } '
        'if (n > 1100) puts("ESCAPED"); puts("full");'),
        {"ok", "memory_limit"}, limits=MEMORY),
    attack("memory", "dev-shm", "bash",
           "head -c 500M /dev/zero > /dev/shm/kiln-hostile && echo ESCAPED; echo refused",
           {"ok", "memory_limit"}, limits=MEMORY),
    attack("memory", "page-cache", "bash", "cat /usr/lib/x86_64-linux-gnu/*.so* > /dev/null; echo read", {
           "ok", "time_limit"}, limits=MEMORY),
    attack("memory", "pipes", "c", c(
        "for (;;) { int p[2]; if (pipe2(p, O_NONBLOCK)) { usleep(1000); continue; } "
        "fcntl(p[0], F_SETPIPE_SZ, 1 << 20);"
        " while (write(p[1], big, sizeof big) > 0); }"), STOPPED, limits=MEMORY | {"open_files": 4096}),
    attack("memory", "sockets", "c", c(
        "for (;;) { int p[2], n = 16 << 20; if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, p)) "
        "{ usleep(1000); continue; }"
        " setsockopt(p[0], SOL_SOCKET, SO_SNDBUF, &n, sizeof n); "
        "while (write(p[0], big, sizeof big) > 0); }"),
        STOPPED, limits=MEMORY | {"open_files": 4096}),
    attack("memory", "overcommit", "c", c(
        'size_t n = 0; while (n < 4096 && mmap(NULL, 1ul << 34, 3, MAP_PRIVATE | MAP_ANONYMOUS | '
        'MAP_NORESERVE, -1, 0) != MAP_FAILED) n++; puts("mapped");'),
        {"ok", "memory_limit"}, limits=MEMORY),
    attack("memory", "mlock", "c", c(
        'char *p = mmap(NULL, 48 << 20, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); '
        'said("mlock", mlock(p, 48 << 20)); said("mlockall", mlockall(3));'),
        "ok", ("mlock refused", "mlockall refused")),
    attack("memory", "hugetlb", "c", c(
        'said("hugetlb", mmap(NULL, 2 << 20, 3, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0) == '
        'MAP_FAILED ? -1 : 0);'), "ok", "hugetlb refused"),
    attack("memory", "sysv-shm", "c", c(
        'for (int i = 0; i < 4000; i++) { int id = shmget(0, 1 << 20, 01600); if (id < 0) break; '
        'char *p = shmat(id, NULL, 0); if (p != (void *)-1) memset(p, 1, 1 << 20); }'
        ' for (;;) pause();', "#include <sys/shm.h>"), GROWN, limits=MEMORY),
    attack("memory", "python", "python", "x = []\nwhile True: x.append(bytearray(b'x') * (1 << 20))\n", GROWN,
           limits=MEMORY),
    attack("memory", "python-integer", "python", "x = 3\nwhile True: x = x * x\n", STOPPED, limits=MEMORY),
    attack("memory", "javascript", "javascript",
           "const b = []; for (;;) b.push(Buffer.alloc(1 << 20, 1));", GROWN, limits=NODE),
    attack("memory", "javascript-heap", "javascript",
           "let a = []; for (;;) a.push(new Array(1000).fill({}));", ENDED, limits=NODE),
    attack("memory", "java", "java", java(
           "List<byte[]> l = new ArrayList<>(); while (true) l.add(new byte[1 << 20]);"), GROWN, limits=JAVA),
    attack("memory", "java-direct", "java", java(
        "List<Object> l = new ArrayList<>(); while (true) { try { "
        "l.add(java.nio.ByteBuffer.allocateDirect(1 << 20)); } catch (Throwable t) { } }"),
        STOPPED, limits=JAVA),
    attack("memory", "bash", "bash", "x=xxxxxxxxxxxxxxxx\nwhile :; do x=$x$x; done", GROWN, limits=MEMORY),
]

SMALL = BOMB | {"output_bytes": 64 << 10, "wall_ms": 5000, "cpu_ms": 3000}
FLOOD = {"output_limit"}
OUTPUT = [
    attack("output", "stdout", "c", c("for (;;) write(1, big, sizeof big);"), FLOOD, limits=SMALL),
    attack("output", "stderr", "c", c("for (;;) write(2, big, sizeof big);"), FLOOD, limits=SMALL),
    attack("output", "both", "c", c("for (;;) { write(1, big, 100); write(2, big, 100); }"), FLOOD,
           limits=SMALL),
    attack("output", "children", "python",
           "import os\nfor _ in range(4): os.fork()\n"
           "while True: os.write(1, b'x' * 4096)\n", FLOOD,
           limits=SMALL),
    attack("output", "yes", "bash", "yes", FLOOD, limits=SMALL),
    attack("output", "yes-to-stderr", "bash", "yes 1>&2", FLOOD, limits=SMALL),
    attack("output", "zero", "bash", "cat /dev/zero", FLOOD, limits=SMALL),
    attack("output", "javascript", "javascript",
           "const fs = require('fs'); for (;;) fs.writeSync(1, 'x'.repeat(4096));", ENDED - DONE,
           limits=NODE | {"output_bytes": 64 << 10}),
    attack("output", "java", "java", java(
           "while (true) System.out.println(\"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\");"), FLOOD,
           limits=JAVA | {"output_bytes": 64 << 10, "wall_ms": 6000}),
    attack("output", "invalid-utf8", "python",
           "import os\nos.write(1, bytes(range(256)) * 8 + b'\\xff\\xfe\\xed\\xa0\\x80end')\n", "ok",
           "end"),
    attack("output", "terminal", "bash",
           r"printf '\033]0;title\007\033[2J\033[31m\033P$q\033\\\x00\x9b\x08end'", "ok", "end"),
    attack("output", "own-pipe-back", "c", c('char b[64]; for (int i = 0; i < 3; i++) { int fd = open(i '
           '== 1 ? "/proc/self/fd/1" : "/proc/self/fd/2", O_RDONLY | O_NONBLOCK); '
           'if (fd >= 0 && read(fd, b, sizeof b) > 0) puts("read what was written"); } puts("end");'),
           "ok", "end"),
    attack("output", "pipe-size", "c", c("for (int i = 0; i < 3; i++) fcntl(i, F_SETPIPE_SZ, 4096), "
           "fcntl(i, F_SETFL, O_NONBLOCK | O_DIRECT | O_ASYNC); puts(\"end\");"),
           {"ok", "signalled"}),
    attack("output", "unread-stdin", "python", "print('end')\n", "ok", "end", stdin="x" * MIB),
    attack("output", "closes-all", "c", c("for (int i = 0; i < 1024; i++) close(i); for (;;) pause();"),
           "time_limit", limits=BOMB),
    attack("output", "one-long-line-of-json", "javascript",
           "process.stdout.write('{\"outcome\":\"ok\",\"exit_code\":0}\\n\\u0000\\u2028'.repeat(100) + "
           "'end'); process.exit(9)",
           "runtime_error", "end"),
]

TIME = [
    attack("time", "burn-c", "c", c("for (volatile long i = 0;; i = i + 1) ;"), "time_limit", limits=BOMB),
    attack("time", "burn-python", "python", "while True: pass\n", "time_limit", limits=BOMB),
    attack("time", "burn-java", "java", java("while (true) { }"), "time_limit", limits=JAVA),
    attack("time", "burn-javascript", "javascript", "for (;;) {}", "time_limit", limits=NODE),
    attack("time", "burn-bash", "bash", "while :; do :; done", "time_limit", limits=BOMB),
    attack("time", "burn-ignores-xcpu", "c", c(
           "for (int s = 1; s < 65; s++) signal(s, SIG_IGN); for (volatile long i = 0;; i = i + 1) ;"),
           "time_limit", limits=BOMB),
    attack("time", "burn-children", "c", c(
        "for (;;) { if (fork() == 0) { while (clock() < CLOCKS_PER_SEC / 20) ; _exit(0); } wait(NULL); }",
        "#include <time.h>"), "time_limit", limits=BOMB),
    attack("time", "burn-unwaited", "c", c("signal(SIGCHLD, SIG_IGN); for (int i = 0; i < 8; "
           "i++) if (fork() == 0) for (;;) ; for (;;) pause();"),
           "time_limit", limits=BOMB),
    attack("time", "sleep-python", "python", "import time\ntime.sleep(1000)\n", "time_limit", limits=BOMB),
    attack("time", "sleep-java", "java", java("Thread.sleep(1000000);"), "time_limit", limits=JAVA),
    attack("time", "sleep-javascript", "javascript", "setInterval(() => {}, 1000);", "time_limit",
           limits=NODE),
    attack("time", "sleep-bash", "bash", "trap '' TERM\nwhile :; do sleep 1; done", "time_limit",
           limits=BOMB),
    attack("time", "timer-storm", "c", c(
        'struct itimerval v = {{0, 1}, {0, 1}}; signal(SIGALRM, on); signal(SIGPROF, on); '
        'setitimer(ITIMER_REAL, &v, NULL); setitimer(ITIMER_PROF, &v, NULL); for (;;) pause();',
        "static void on(int s) { (void)s; }"), "time_limit", limits=BOMB),
    attack("time", "posix-timers", "c", c(
        'timer_t t; int n = 0; struct sigevent e = {.sigev_notify = SIGEV_NONE}; '
        'while (n < 200000 && timer_create(CLOCK_MONOTONIC, &e, &t) == 0) n++; '
        'if (n == 200000) puts("ESCAPED"); puts("refused");', "#include <time.h>"), ENDED, limits=MEMORY),
    attack("time", "priority", "c", c('said("nice", setpriority(PRIO_PROCESS, 0, -20)); '
           'struct sched_param p = {50}; said("fifo", sched_setscheduler(0, SCHED_FIFO, &p));'),
           "ok", ("nice refused", "fifo refused")),
    attack("time", "raise-own-limits", "c", c(
        'struct rlimit r; int w[] = {RLIMIT_CPU, RLIMIT_NOFILE, RLIMIT_STACK, RLIMIT_FSIZE, RLIMIT_CORE, '
        'RLIMIT_MEMLOCK}; for (int i = 0; i < 6; i++) { getrlimit(w[i], &r);'
        ' r.rlim_max = r.rlim_max == RLIM_INFINITY ? r.rlim_max : r.rlim_max + 1; '
        'if (r.rlim_max != RLIM_INFINITY) said("raise", setrlimit(w[i], &r)); }'), "ok", "raise refused"),
]

FILES = [
    attack("files", "one-big", "c", c('int fd = open("f", O_CREAT | O_RDWR, 0600); long n = 0; '
           'signal(SIGXFSZ, SIG_IGN); for (;;) { long k = write(fd, big, sizeof big); if (k <= 0) break; '
           'n += k; }'
           ' puts(n > (130l << 20) ? "ESCAPED" : "refused");'), {"ok", "memory_limit"}, limits=MEMORY),
    attack("files", "inodes", "python",
           "n = 0\ntry:\n    while n < 1000000:\n        open(f'f{n}', 'w').close()\n        n += 1\n"
           "    print('ESCAPED')\nexcept OSError as e: print('refused:', n, e)\n",
           {"ok", "memory_limit", "time_limit"}, limits=MEMORY),
    attack("files", "directories", "bash", "while mkdir d && cd d; do :; done 2>/dev/null; echo refused",
           STOPPED | {"ok"}, limits=BOMB),
    attack("files", "deep-python", "python", "import os\nwhile True:\n    os.mkdir('d'); os.chdir('d')\n",
           ENDED, limits=MEMORY),
    attack("files", "sparse", "c", c('signal(SIGXFSZ, SIG_IGN); said("sparse", ftruncate(open("f", '
           'O_CREAT | O_RDWR, 0600), 1l << 40));'), "ok", "sparse refused"),
    attack("files", "fallocate", "c", c('signal(SIGXFSZ, SIG_IGN); said("fallocate", fallocate(open("f", '
           'O_CREAT | O_RDWR, 0600), 0, 0, 1l << 32));'), "ok", "fallocate refused"),
    attack("files", "long-names", "bash", "i=0; n=$(printf 'x%.0s' {1..240}); while [ $i -lt 300 ]; "
           "do : > $n$i || break; i=$((i+1)); done; echo end", {"ok"}, "end", limits=MEMORY),
    attack("files", "fifo", "bash", "mkfifo f; cat f", "time_limit", limits=BOMB),
    attack("files", "xattr", "c", c('int fd = open("f", O_CREAT | O_RDWR, 0600); '
           'said("trusted", fsetxattr(fd, "trusted.x", "y", 1, 0)); '
           'said("security", fsetxattr(fd, "security.capability", big, 20, 0));',
           "#include <sys/xattr.h>"), "ok", ("trusted refused", "security refused")),
    attack("files", "descriptors", "c", c(
           'int n = 0; while (n < 100000 && dup(1) >= 0) n++; puts(n > 300 ? "ESCAPED" : "refused");'),
           "ok", "refused"),
    attack("files", "unlinked", "python",
           "import os\nn = 0\ntry:\n    while n < 200:\n"
           "        f = os.open('f', os.O_CREAT | os.O_RDWR); os.unlink('f'); "
           "os.write(f, b'x' * (1 << 20)); n += 1\n    print('ESCAPED')\n"
           "except OSError as e: print('refused:', n)\n", {"ok", "memory_limit"}, limits=MEMORY),
    attack("files", "remove-everything", "bash",
           "rm -rf --no-preserve-root / 2>/dev/null; exec 2>/dev/null; echo end", {"ok", "time_limit"}, "end"),
    attack("files", "write-everywhere", "bash", "for d in / /usr /etc /bin /lib /proc /dev /usr/share "
           "/usr/lib; do ( echo x > $d/kiln-hostile ) 2>/dev/null && echo ESCAPED $d; done; echo end",
           {"ok"}, "end"),
    attack("files", "java-temp", "java", java(
        "int n = 0; try { while (n < 1000000) { Files.createTempFile(\"kiln-hostile\", \"\"); n++; } "
        "System.out.println(\"ESCAPED\"); } catch (IOException e) { System.out.println(\"refused\"); }"),
        ENDED, limits=JAVA),
]

ATTACKS = PROCESSES + MEMORY_BOMBS + OUTPUT + TIME + FILES
