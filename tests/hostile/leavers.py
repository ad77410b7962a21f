# SPDX-License-Identifier: Apache-2.0
"""Short programs that each leave something behind, or end in a way that could: for many of them in a row.
Most are one program in C with an argument, which is compiled once, so that thousands take minutes."""

from attack import MIB, attack, c, java

LIMITS = {"wall_ms": 5000, "cpu_ms": 2000, "memory_bytes": 48 * MIB, "processes": 16, "output_bytes": 65536}
SHORT = LIMITS | {"wall_ms": 60}
BUSY = LIMITS | {"cpu_ms": 30}

HEAD = r"""
#include <mqueue.h>
#include <netinet/in.h>
#include <semaphore.h>
#include <sys/file.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/timerfd.h>
#include <time.h>

/* A process that nobody waits for, with everything that its maker had open. */
static void stay(void)
{
	if (fork() == 0) {
		setsid();
		if (fork() == 0)
			for (;;)
				pause();
		_exit(0);
	}
	usleep(500);
}
static void stopped(void) { if (fork() == 0) { raise(SIGSTOP); for (;;) pause(); } }
static void zombies(void) { for (int i = 0; i < 8; i++) if (fork() == 0) _exit(0); }
static void ignores(void)
{
	for (int s = 1; s < 65; s++)
		signal(s, SIG_IGN);
	stay();
}
static void sysv(void)
{
	int id = shmget(0x4b494c4e, 1 << 20, IPC_CREAT | 0666);
	memset(shmat(id, NULL, 0), 1, 1 << 20);
	semop(semget(0x4b494c4e, 2, IPC_CREAT | 0666), &(struct sembuf){0, 1, SEM_UNDO}, 1);
	msgsnd(msgget(0x4b494c4e, IPC_CREAT | 0666), &(struct { long type; char text[64]; }){1, "left"}, 64, 0);
}
static void posix(void)
{
	int fd = shm_open("/kiln-hostile", O_CREAT | O_RDWR, 0666);
	if (ftruncate(fd, 1 << 20) == 0)
		memset(mmap(NULL, 1 << 20, 3, MAP_SHARED, fd, 0), 1, 1 << 20);
	sem_open("/kiln-hostile", O_CREAT, 0666, 1);
	mq_open("/kiln-hostile", O_CREAT | O_RDWR, 0666, NULL);
}
static void files(void)
{
	static const char *const at[] = {"/tmp", "/dev/shm", "/box"};
	for (int i = 0; i < 3; i++) {
		if (chdir(at[i]) < 0)
			continue;
		mkfifo("kiln-hostile-fifo", 0666);
		symlink("/etc/passwd", "kiln-hostile-link");
		int fd = open("kiln-hostile", O_CREAT | O_RDWR, 06777);
		if (ftruncate(fd, 1 << 30) < 0 || fallocate(fd, 0, 0, 1 << 20) < 0)
			(void)fd;
		link("kiln-hostile", "kiln-hostile-hard");
		for (int n = 0; n < 20; n++) {
			char name[64];
			snprintf(name, 64, "kiln-hostile-%d", n);
			mkdir(name, 0777);
		}
		int s = socket(AF_UNIX, SOCK_STREAM, 0);
		bind(s, (struct sockaddr *)&(struct sockaddr_un){AF_UNIX, "kiln-hostile-socket"}, 32);
	}
}
static void full(void)
{
	int fd = open("/tmp/kiln-hostile-full", O_CREAT | O_WRONLY, 0600);
	while (write(fd, big, sizeof(big)) > 0)
		;
}
static void abstract(void)
{
	int s = socket(AF_UNIX, SOCK_STREAM, 0);
	bind(s, (struct sockaddr *)&(struct sockaddr_un){AF_UNIX, "\0kiln-hostile"}, 15);
	listen(s, 5);
	stay();
}
static void network(void)
{
	struct sockaddr_in a = {AF_INET, htons(4242), {htonl(INADDR_LOOPBACK)}, {0}};
	int l = socket(AF_INET, SOCK_STREAM, 0), s = socket(AF_INET, SOCK_STREAM, 0);
	bind(l, (struct sockaddr *)&a, sizeof(a));
	listen(l, 5);
	connect(s, (struct sockaddr *)&a, sizeof(a));
	shutdown(s, SHUT_RDWR);
	int u = socket(AF_INET6, SOCK_DGRAM, 0);
	sendto(u, "left", 4, 0, (struct sockaddr *)&(struct sockaddr_in6){AF_INET6, htons(4242), 0,
	       IN6ADDR_LOOPBACK_INIT, 0}, sizeof(struct sockaddr_in6));
	stay();
}
static void locks(void)
{
	int fd = open("/usr/bin/env", O_RDONLY), own = open("lock", O_CREAT | O_RDWR, 0600);
	flock(fd, LOCK_SH);
	flock(own, LOCK_EX);
	fcntl(fd, F_SETLK, &(struct flock){.l_type = F_RDLCK});
	fcntl(own, F_OFD_SETLK, &(struct flock){.l_type = F_WRLCK});
	stay();
}
static void in_flight(void)
{
	int p[2], fd = memfd_create("kiln-hostile", 0);
	char control[CMSG_SPACE(sizeof(int))] = {0};
	struct iovec iov = {"x", 1};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control,
			   .msg_controllen = sizeof(control)};
	struct cmsghdr *h = CMSG_FIRSTHDR(&m);
	socketpair(AF_UNIX, SOCK_DGRAM, 0, p);
	if (write(fd, big, sizeof(big)) < 0)
		return;
	h->cmsg_len = CMSG_LEN(sizeof(int));
	h->cmsg_level = SOL_SOCKET;
	h->cmsg_type = SCM_RIGHTS;
	for (int i = 0; i < 3; i++) {
		int each[] = {fd, p[1], p[0]};
		memcpy(CMSG_DATA(h), &each[i], sizeof(int));
		sendmsg(p[0], &m, 0);
	}
}
static void pipes(void)
{
	for (int i = 0; i < 40; i++) {
		int p[2];
		if (pipe2(p, O_NONBLOCK) == 0)
			while (write(p[1], big, sizeof(big)) > 0)
				;
	}
	stay();
}
static void keys(void)
{
	syscall(SYS_add_key, "user", "kiln-hostile", "x", 1ul, -4);
	syscall(SYS_add_key, "user", "kiln-hostile", "x", 1ul, -5);
	syscall(SYS_keyctl, 1, "kiln-hostile", 0, 0, 0);
}
static void clocks(void)
{
	timer_t t;
	struct sigevent e = {.sigev_notify = SIGEV_NONE};
	struct itimerspec often = {{0, 1000}, {0, 1000}};
	timer_create(CLOCK_MONOTONIC, &e, &t);
	timer_settime(t, 0, &often, NULL);
	timerfd_settime(timerfd_create(CLOCK_REALTIME, 0), 0, &often, NULL);
	alarm(1000);
	stay();
}
static void scheduling(void)
{
	setpriority(PRIO_PROCESS, 0, 19);
	setpriority(PRIO_USER, 0, 19);
	sched_setscheduler(0, SCHED_IDLE, &(struct sched_param){0});
	sched_setaffinity(0, 8, (unsigned long[]){1});
	syscall(SYS_ioprio_set, 1, 0, 3 << 13);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	prctl(PR_SET_NAME, "kiln-sandbox");
	stay();
}
static void fork_bomb(void) { for (;;) fork(); }
static void spin(void) { for (;;) ; }
static void asleep(void) { for (;;) pause(); }
static void stop_all(void) { kill(-1, SIGSTOP); raise(SIGSTOP); for (;;) pause(); }
static void crash(void) { *(volatile int *)8 = 1; }
static void kill_all(void) { stay(); kill(-1, SIGKILL); raise(SIGKILL); }
static void flood(void) { stay(); while (write(1, big, sizeof(big)) > 0) ; }
static void memory(void)
{
	for (;;) {
		char *p = mmap(NULL, 1 << 20, 3, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
		if (p != MAP_FAILED)
			memset(p, 1, 1 << 20);
	}
}
#define KIND(name) {#name, name}
static const struct { const char *name; void (*run)(void); } kinds[] = {
	KIND(stay), KIND(stopped), KIND(zombies), KIND(ignores), KIND(sysv), KIND(posix), KIND(files),
	KIND(full), KIND(abstract), KIND(network), KIND(locks), KIND(in_flight), KIND(pipes), KIND(keys),
	KIND(clocks), KIND(scheduling), KIND(fork_bomb), KIND(spin), KIND(asleep), KIND(stop_all),
	KIND(crash), KIND(kill_all), KIND(flood), KIND(memory),
};
"""
CODE = c(r"""
	signal(SIGXFSZ, SIG_IGN);
	for (size_t i = 0; argc == 2 && i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (strcmp(argv[1], kinds[i].name) == 0) {
			kinds[i].run();
			puts("left");
			return 0;
		}
	return 1;""", HEAD)

ENDS = ("stay stopped zombies ignores sysv posix files abstract network locks in_flight pipes keys "
        "clocks scheduling").split()
OTHERS = {  # how they end, with which limits
    "fork_bomb": ({"memory_limit", "time_limit"}, SHORT), "spin": ("time_limit", BUSY), "asleep": ("time_limit", SHORT),
    "full": ({"ok", "memory_limit"}, LIMITS), "stop_all": ("time_limit", SHORT),
    "crash": ("signalled", LIMITS), "kill_all": ("signalled", LIMITS),
    "flood": ("output_limit", LIMITS), "memory": ({"memory_limit", "time_limit"}, LIMITS),
}

QUICK = [attack("leave", name, "c", CODE, "ok", "left", limits=LIMITS, args=(name,)) for name in ENDS] + \
    [attack("leave", name, "c", CODE, outcome, limits=limits, args=(name,))
     for name, (outcome, limits) in OTHERS.items()]

# Each of these takes as long as dozens of the others, so they are rare.
SLOW = [
    attack("leave", "python", "python",
           "import os, subprocess, threading\nopen('/tmp/kiln-hostile', 'w').write('x' * 100000)\n"
           "subprocess.Popen(['/bin/sleep', '100'], start_new_session=True)\n"
           "threading.Thread(target=__import__('time').sleep, args=(0.01,)).start()\nprint('left')\n",
           "ok", "left", limits=LIMITS),
    attack("leave", "bash", "bash", "nohup setsid sleep 100 >/dev/null 2>&1 &\nmkfifo /tmp/kiln-hostile\n"
           "(cat < /tmp/kiln-hostile) & disown\necho left", "ok", "left", limits=LIMITS),
    attack("leave", "javascript", "javascript",
           "require('child_process').spawn('/bin/sleep', ['100'], {detached: true, stdio: 'ignore'});\n"
           "require('net').createServer().listen('/tmp/kiln-hostile'); console.log('left'); process.exit(0);",
           "ok", "left", limits=LIMITS | {"memory_bytes": 256 * MIB, "processes": 64}),
    attack("leave", "java", "java", java(
        "new Thread(() -> { while (true) {} }).start(); new ProcessBuilder(\"/bin/sleep\", \"100\").start(); "
        "System.out.println(\"left\"); Runtime.getRuntime().halt(0);"),
        "ok", "left", limits=LIMITS | {"memory_bytes": 256 * MIB, "processes": 64}),
]


def compiled_anew(number):
    """A compiler that is never spared by the cache, and leaves what it can."""
    good = number % 2
    code = f"/* {number} */\n" + ("int main(void) { return 0; }" if good else
                                  '#include "main.c"\nint main(void) { return nothing; }')
    return attack("leave", f"compiler-{number}", "c", code, "ok" if good else "compile_error", limits=LIMITS)


def mixed(count, rng):
    """A row of them: in a hundred, two of the slow ones and two new programs."""
    for number in range(count):
        dice = rng.randrange(100)
        if dice < 2:
            yield rng.choice(SLOW)
        elif dice < 4:
            yield compiled_anew(number)
        else:
            yield rng.choice(QUICK)
