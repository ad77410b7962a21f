/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Attacks on a sandbox: `payload NAME [ARGUMENT]` tries one thing and prints what it managed.
 * Static, so that it runs in any root. test_sandbox.py says what each may print.
 */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void say(const char *what, long result)
{
	(void)printf("%s: %s\n", what, result < 0 ? strerrorname_np(errno) : "ok");
	(void)fflush(stdout);
}

static void nap(long msec)
{
	const struct timespec t = {.tv_sec = msec / 1000, .tv_nsec = msec % 1000 * 1000000};

	(void)nanosleep(&t, NULL);
}

static _Noreturn void burn(void)
{
	for (volatile unsigned long i = 0;; i = i + 1)
		;
}

static void try_burn(void)
{
	burn();
}

/* Each child stays below what one process may use. */
static void try_burn_children(void)
{
	for (;;) {
		pid_t pid = fork();

		if (pid == 0) {
			clock_t end = clock() + CLOCKS_PER_SEC / 20;

			while (clock() < end)
				;
			_exit(0);
		}
		(void)waitpid(pid, NULL, 0);
	}
}

static void *burn_thread(void *arg)
{
	(void)arg;
	burn();
}

static void try_burn_threads(void)
{
	pthread_t t;

	for (int i = 0; i < 3; i++)
		(void)pthread_create(&t, NULL, burn_thread, NULL);
	burn();
}

static void try_burn_ignored(void)
{
	const struct sigaction ignore = {.sa_handler = SIG_IGN};

	(void)sigaction(SIGXCPU, &ignore, NULL);
	burn();
}

static void try_stop(void)
{
	(void)kill(getpid(), SIGSTOP);
	nap(60000);
}

static void try_sleep(void)
{
	nap(60000);
}

static void try_heap(void)
{
	for (;;) {
		char *p = malloc(1 << 20);

		if (p)
			memset(p, 1, 1 << 20);
	}
}

static void try_heap_child(void)
{
	if (fork() == 0)
		try_heap();
	(void)wait(NULL);
	nap(60000);
}

static void try_heap_shared(void)
{
	char *p = mmap(NULL, 1u << 30, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	for (size_t i = 0; i < 1u << 30; i += 4096)
		p[i] = 1;
}

static void fill(const char *path)
{
	static char buf[1 << 16];
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
	ssize_t n;
	long total = 0;

	if (fd < 0) {
		say("open", -1);
		return;
	}
	while ((n = write(fd, buf, sizeof(buf))) > 0)
		total += n;
	(void)printf("wrote %ld KiB\n", total / 1024);
	say("write", n);
}

static void try_disk(void)
{
	const struct sigaction ignore = {.sa_handler = SIG_IGN};

	(void)sigaction(SIGXFSZ, &ignore, NULL);
	fill("/box/a");
	fill("/tmp/b");
	fill("/dev/shm/c");
}

static void try_file_size(void)
{
	fill("/box/a");
}

static void try_inodes(void)
{
	int i = 0;

	for (;; i++) {
		char name[32];

		(void)snprintf(name, sizeof(name), "f%d", i);
		if (mknod(name, S_IFREG | 0600, 0) < 0)
			break;
	}
	say("mknod", -1);
	(void)printf("files: %d\n", i);
}

static void try_fork_bomb(void)
{
	int children = 0;

	for (;;) {
		pid_t pid = fork();

		if (pid == 0) {
			nap(60000);
			_exit(0);
		}
		if (pid < 0)
			break;
		children++;
	}
	say("fork", -1);
	(void)printf("children: %d\n", children);
}

static void try_wild_fork_bomb(void)
{
	for (;;)
		(void)fork();
}

static void *nap_thread(void *arg)
{
	(void)arg;
	nap(60000);
	return NULL;
}

static void try_thread_bomb(void)
{
	pthread_t t;
	int threads = 0;

	while (pthread_create(&t, NULL, nap_thread, NULL) == 0)
		threads++;
	(void)printf("threads: %d\n", threads);
	(void)fflush(stdout);
	_exit(0);
}

static void try_network(void)
{
	static const struct {
		const char *name;
		int family, type;
	} sockets[] = {{"packet", AF_PACKET, SOCK_RAW},
		       {"vsock", AF_VSOCK, SOCK_STREAM},
		       {"alg", AF_ALG, SOCK_SEQPACKET},
		       {"bluetooth", AF_BLUETOOTH, SOCK_RAW},
		       {"key", AF_KEY, SOCK_RAW}};
	/* 192.0.2.1, a documentation address */
	struct sockaddr_storage to = {.ss_family = AF_INET};
	const uint8_t address[8] = {0, 80, 192, 0, 2, 1};
	int s = socket(AF_INET, SOCK_STREAM, 0);

	memcpy((char *)&to + 2, address, 6);
	say("connect", connect(s, (struct sockaddr *)&to, 16));
	for (size_t i = 0; i < sizeof(sockets) / sizeof(sockets[0]); i++)
		say(sockets[i].name, socket(sockets[i].family, sockets[i].type, 0));
	say("inet raw", socket(AF_INET, SOCK_RAW, 1));
	say("netlink audit", socket(AF_NETLINK, SOCK_RAW, 9));
	say("netlink route", socket(AF_NETLINK, SOCK_RAW, 0));
}

/* Leaves marks in the network namespace. */
static void try_use_loopback(void)
{
	struct sockaddr_storage to = {.ss_family = AF_INET};
	const uint8_t address[6] = {0x12, 0x34, 127, 0, 0, 1};
	int a = socket(AF_INET, SOCK_DGRAM, 0);

	memcpy((char *)&to + 2, address, 6);
	say("send", sendto(a, "x", 1, 0, (struct sockaddr *)&to, 16));
}

static void try_abstract(void)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX, .sun_path = "\0kiln-test"};
	int s = socket(AF_UNIX, SOCK_STREAM, 0);

	say("bind", bind(s, (struct sockaddr *)&un, sizeof(un)));
}

static void try_mounts(void)
{
	say("mount tmpfs", mount("x", "/tmp", "tmpfs", 0, NULL));
	say("remount", mount(NULL, "/", NULL, MS_REMOUNT, NULL));
	say("umount", umount2("/proc", MNT_DETACH));
	say("unshare user", unshare(CLONE_NEWUSER));
	say("unshare mount", unshare(CLONE_NEWNS));
	say("setns", setns(open("/proc/self/ns/net", O_RDONLY), 0));
	say("clone user", syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0));
	say("chroot", chroot("/tmp"));
	say("pivot_root", syscall(SYS_pivot_root, ".", "."));
	say("fsopen", syscall(SYS_fsopen, "tmpfs", 0));
	say("open_tree", syscall(SYS_open_tree, AT_FDCWD, "/", 1));
	say("clone3", syscall(SYS_clone3, NULL, 0));
	say("mknod", mknod("/box/null", S_IFCHR | 0666, 0x103));
}

static void try_denied(void)
{
	uint64_t limits[2] = {0, 0};

	say("keyctl", syscall(SYS_keyctl, 0, -3, 0, 0, 0));
	say("add_key", syscall(SYS_add_key, "user", "a", "b", 1, -3));
	say("io_uring_setup", syscall(SYS_io_uring_setup, 1, NULL));
	say("inotify_init1", syscall(SYS_inotify_init1, 0));
	say("userfaultfd", syscall(SYS_userfaultfd, 1));
	say("bpf", syscall(SYS_bpf, 0, NULL, 0));
	say("perf_event_open", syscall(SYS_perf_event_open, NULL, 0, -1, -1, 0));
	say("ptrace", ptrace(PTRACE_TRACEME, 0, 0, 0));
	say("process_vm_readv", syscall(SYS_process_vm_readv, 1, NULL, 0, NULL, 0, 0));
	say("pidfd_getfd", syscall(SYS_pidfd_getfd, 0, 0, 0));
	say("open_by_handle_at", syscall(SYS_open_by_handle_at, 0, NULL, 0));
	say("personality", personality(ADDR_NO_RANDOMIZE));
	say("personality high bit", personality(ADDR_NO_RANDOMIZE | 0x80000000ul));
	say("prlimit 1", syscall(SYS_prlimit64, 1, RLIMIT_CPU, limits, NULL));
	say("tiocsti", ioctl(0, TIOCSTI, "x"));
	say("tiocsti high", syscall(SYS_ioctl, 0, TIOCSTI | 1ul << 40, "x"));
	say("setlease", fcntl(open("/box/lease", O_RDONLY | O_CREAT, 0600), F_SETLEASE, F_RDLCK));
	say("syslog", syscall(SYS_syslog, 3, NULL, 0));
	say("newer", syscall(500));
	say("minus one", syscall(-1));
	say("vsock high", syscall(SYS_socket, AF_VSOCK | 1ul << 32, SOCK_STREAM, 0));
}

#ifdef __x86_64__
static void try_i386(void)
{
	long r;

	__asm__ volatile("int $0x80" : "=a"(r) : "a"(20) : "memory");
	(void)printf("pid by int 0x80: %ld\n", r);
}

static void try_x32(void)
{
	(void)printf("pid by x32: %ld\n", syscall(0x40000000 | SYS_getpid));
}
#endif

static void try_identity(void)
{
	char line[256];
	FILE *f = fopen("/proc/self/status", "re");

	(void)printf("uid %u gid %u pid %d sid %d\n", getuid(), getgid(), getpid(), getsid(0));
	while (f && fgets(line, sizeof(line), f))
		if (strncmp(line, "Cap", 3) == 0 || strncmp(line, "NoNew", 5) == 0 ||
		    strncmp(line, "Seccomp:", 8) == 0 || strncmp(line, "SigIgn", 6) == 0 ||
		    strncmp(line, "SigBlk", 6) == 0)
			(void)printf("%s", line);
	say("setuid", setuid(0));
	f = fopen("/proc/self/uid_map", "re");
	while (f && fgets(line, sizeof(line), f))
		(void)printf("map %s", line);
}

static void try_files(void)
{
	static const char *const paths[] = {
		"/etc/shadow", "/root",		  "/home",	  "/sys",
		"/var",	       "/boot",		  "/proc/1/root", "/proc/1/fd",
		"/proc/1/mem", "/proc/1/environ", "/template",	  "/mount"};
	static const char *const writes[] = {"/x",     "/etc/passwd", "/usr/x",
					     "/dev/x", "/bin/x",      "/proc/sys/kernel/hostname",
					     "/box/x", "/tmp/x",      "/dev/shm/x"};

	for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++)
		say(paths[i], open(paths[i], O_RDONLY));
	for (size_t i = 0; i < sizeof(writes) / sizeof(writes[0]); i++) {
		(void)printf("write ");
		say(writes[i], open(writes[i], O_WRONLY | O_CREAT, 0644));
	}
}

static void try_fds(void)
{
	for (int fd = 0; fd < 1024; fd++)
		if (fcntl(fd, F_GETFD) >= 0)
			(void)printf("fd %d\n", fd);
}

static void try_limits(void)
{
	static const struct {
		const char *name;
		int resource;
	} all[] = {{"core", RLIMIT_CORE},   {"nofile", RLIMIT_NOFILE},	 {"stack", RLIMIT_STACK},
		   {"fsize", RLIMIT_FSIZE}, {"memlock", RLIMIT_MEMLOCK}, {"as", RLIMIT_AS}};

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		struct rlimit l;

		(void)getrlimit((__rlimit_resource_t)all[i].resource, &l);
		(void)printf("%s %ld\n", all[i].name, (long)l.rlim_max);
	}
}

static void try_kill_all(void)
{
	say("kill 1", kill(1, SIGKILL));
	say("stop 1", kill(1, SIGSTOP));
	say("kill -1", kill(-1, SIGKILL));
	nap(100);
	(void)printf("alive\n");
}

/* A grandchild in a session of its own that keeps stdout open. */
static void try_orphan(void)
{
	(void)printf("main done\n");
	(void)fflush(stdout);
	if (fork() == 0) {
		(void)setsid();
		if (fork() == 0)
			nap(60000);
		_exit(0);
	}
	(void)wait(NULL);
}

static void try_traps(void)
{
	int fd = open("real.out", O_WRONLY | O_CREAT, 0755);

	say("write", write(fd, "real", 4));
	say("mkdir", mkdir("sub", 0755));
	fd = open("sub/deep.out", O_WRONLY | O_CREAT, 0644);
	say("write", write(fd, "deep", 4));
	say("symlink", symlink("/etc/passwd", "link.out"));
	say("symlink", symlink("/usr", "dir.out"));
	say("symlink", symlink("/proc/self/environ", "magic.out"));
	say("mkfifo", mkfifo("fifo.out", 0644));
	say("link", link("real.out", "../box/sub/hard.out"));
	say("unlink", unlink("real.out"));
	fd = open("real.out", O_WRONLY | O_CREAT, 0755);
	say("write", write(fd, "real", 4));
	say("link", link("real.out", "sub/hard2.out"));
	fd = open("fine.out", O_WRONLY | O_CREAT, 04755);
	say("write", write(fd, "fine", 4));
	fd = open("big.out", O_WRONLY | O_CREAT, 0644);
	say("truncate", ftruncate(fd, 4 << 20));
}

static void try_signal(void)
{
	(void)kill(getpid(), SIGSEGV);
}

static void try_segfault(void)
{
	volatile int *nowhere = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	*nowhere = 1;
}

static void try_exit_3(void)
{
	exit(3);
}

static const struct {
	const char *name;
	void (*run)(void);
} tries[] = {
	{"burn", try_burn},
	{"burn_children", try_burn_children},
	{"burn_threads", try_burn_threads},
	{"burn_ignored", try_burn_ignored},
	{"stop", try_stop},
	{"sleep", try_sleep},
	{"heap", try_heap},
	{"heap_child", try_heap_child},
	{"heap_shared", try_heap_shared},
	{"disk", try_disk},
	{"file_size", try_file_size},
	{"inodes", try_inodes},
	{"fork_bomb", try_fork_bomb},
	{"wild_fork_bomb", try_wild_fork_bomb},
	{"thread_bomb", try_thread_bomb},
	{"network", try_network},
	{"use_loopback", try_use_loopback},
	{"abstract", try_abstract},
	{"mounts", try_mounts},
	{"denied", try_denied},
#ifdef __x86_64__
	{"i386", try_i386},
	{"x32", try_x32},
#endif
	{"identity", try_identity},
	{"files", try_files},
	{"fds", try_fds},
	{"limits", try_limits},
	{"kill_all", try_kill_all},
	{"orphan", try_orphan},
	{"traps", try_traps},
	{"signal", try_signal},
	{"segfault", try_segfault},
	{"exit_3", try_exit_3},
};

int main(int argc, char **argv)
{
	for (size_t i = 0; argc > 1 && i < sizeof(tries) / sizeof(tries[0]); i++) {
		if (strcmp(argv[1], tries[i].name) == 0) {
			tries[i].run();
			return 0;
		}
	}
	(void)fprintf(stderr, "payload: nothing to try\n");
	return 99;
}
