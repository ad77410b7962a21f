/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/seccomp.h"

#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__x86_64__)
#define ARCH	AUDIT_ARCH_X86_64
#define X32_BIT 0x40000000u
#elif defined(__aarch64__)
#define ARCH AUDIT_ARCH_AARCH64
#else
#error "the system call table has not been checked for this architecture"
#endif

/* Calls newer than the headers of Debian 12, or 5.19. From 424 on numbers are the same everywhere.
 */
enum {
	NR_STATMOUNT = 457,
	NR_LISTMOUNT = 458,
	NR_LSM_SET_SELF_ATTR = 460,
	/* removexattrat, Linux 6.13. What comes after it nobody has looked at. */
	NR_NEWEST_KNOWN = 466,
};

/* Denied whatever the arguments are. */
static const struct {
	int number, error;
} denied[] = {
	/* Shared by all processes of one user, outside every namespace. */
	{SYS_add_key, ENOSYS},
	{SYS_keyctl, ENOSYS},
	{SYS_request_key, ENOSYS},
	/* Watches are on inodes, and those below /usr are the host's and every box's: a watch would
	 * tell what others run. */
	{SYS_inotify_init1, ENOSYS},
	{SYS_inotify_add_watch, ENOSYS},
	/* Large interfaces of the kernel, each with a history. */
	{SYS_io_uring_setup, ENOSYS},
	{SYS_io_uring_enter, ENOSYS},
	{SYS_io_uring_register, ENOSYS},
	{SYS_userfaultfd, ENOSYS},
	{SYS_bpf, ENOSYS},
	{SYS_perf_event_open, ENOSYS},
	{SYS_fanotify_init, ENOSYS},
	{SYS_lookup_dcookie, ENOSYS},
	{SYS_vmsplice, ENOSYS},
	{SYS_remap_file_pages, ENOSYS},
	{SYS_memfd_secret, ENOSYS},
	{SYS_nfsservctl, ENOSYS},
	/* Other processes' memory and descriptors. */
	{SYS_ptrace, EPERM},
	{SYS_process_vm_readv, EPERM},
	{SYS_process_vm_writev, EPERM},
	{SYS_process_madvise, EPERM},
	{SYS_process_mrelease, EPERM},
	{SYS_pidfd_getfd, EPERM},
	{SYS_kcmp, EPERM},
	{SYS_move_pages, EPERM},
	{SYS_migrate_pages, EPERM},
	/* Mounts and namespaces, old and new. */
	{SYS_mount, EPERM},
	{SYS_umount2, EPERM},
	{SYS_pivot_root, EPERM},
	{SYS_chroot, EPERM},
	{SYS_unshare, EPERM},
	{SYS_setns, EPERM},
	{SYS_fsopen, ENOSYS},
	{SYS_fsconfig, ENOSYS},
	{SYS_fsmount, ENOSYS},
	{SYS_fspick, ENOSYS},
	{SYS_open_tree, ENOSYS},
	{SYS_move_mount, ENOSYS},
	{SYS_mount_setattr, ENOSYS},
	{NR_STATMOUNT, ENOSYS},
	{NR_LISTMOUNT, ENOSYS},
	{NR_LSM_SET_SELF_ATTR, ENOSYS},
	/* The flags are behind a pointer; glibc falls back to clone(2), but on ENOSYS only. */
	{SYS_clone3, ENOSYS},
	/* Files by handle leave every root. */
	{SYS_name_to_handle_at, ENOSYS},
	{SYS_open_by_handle_at, ENOSYS},
	/* The machine. */
	{SYS_kexec_load, EPERM},
	{SYS_kexec_file_load, EPERM},
	{SYS_reboot, EPERM},
	{SYS_init_module, EPERM},
	{SYS_finit_module, EPERM},
	{SYS_delete_module, EPERM},
	{SYS_swapon, EPERM},
	{SYS_swapoff, EPERM},
	{SYS_acct, EPERM},
	{SYS_syslog, EPERM},
	{SYS_quotactl, EPERM},
	{SYS_quotactl_fd, EPERM},
	{SYS_settimeofday, EPERM},
	{SYS_clock_settime, EPERM},
	{SYS_sethostname, EPERM},
	{SYS_setdomainname, EPERM},
	{SYS_vhangup, EPERM},
#ifdef __x86_64__
	{SYS_inotify_init, ENOSYS},
	{SYS_iopl, EPERM},
	{SYS_ioperm, EPERM},
	{SYS_modify_ldt, ENOSYS},
	{SYS_uselib, ENOSYS},
	{SYS_ustat, ENOSYS},
	{SYS_sysfs, ENOSYS},
	{SYS__sysctl, ENOSYS},
	{SYS_create_module, ENOSYS},
#endif
};

#define NEW_NAMESPACES                                                                             \
	(CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER |             \
	 CLONE_NEWPID | CLONE_NEWNET)
#define ALLOW (-1)

enum op { ALWAYS, EQUAL, OTHER, ABOVE, ANY_BIT, IN_POD = 1 << 4 /* only there */ };

/* Denied for some arguments: entries of one call are tried in order, the first that fits decides,
 * none means allowed. All compared arguments are 32 bits wide in the kernel, so is the comparison:
 * high bits change nothing there either. */
static const struct rule {
	int number;
	uint8_t arg, op;
	uint32_t value;
	int error;
} rules[] = {
	{SYS_clone, 0, ANY_BIT, NEW_NAMESPACES, EPERM},
	/* The terminal that `kiln-sandbox run` may have been started from. */
	{SYS_ioctl, 1, EQUAL, TIOCSTI, EPERM},
	{SYS_ioctl, 1, EQUAL, TIOCLINUX, EPERM},
	/* Leases and notifications reach other users of a shared file. */
	{SYS_fcntl, 1, EQUAL, F_SETLEASE, EPERM},
	{SYS_fcntl, 1, EQUAL, F_NOTIFY, EPERM},
	/* Limits of pid 1, which shares the task's id in an ordinary user's box. */
	{SYS_prlimit64, 0, EQUAL, 1, EPERM},
	{SYS_prlimit64, 0, IN_POD | OTHER, 0, EPERM},
	/* A runner or spawner that is killed ends the pod; one that is stopped would keep it. They
	 * ignore the other signals that stop. */
	{SYS_kill, 1, IN_POD | EQUAL, SIGSTOP, EPERM},
	{SYS_tkill, 1, IN_POD | EQUAL, SIGSTOP, EPERM},
	{SYS_tgkill, 2, IN_POD | EQUAL, SIGSTOP, EPERM},
	{SYS_rt_sigqueueinfo, 1, IN_POD | EQUAL, SIGSTOP, EPERM},
	{SYS_rt_tgsigqueueinfo, 2, IN_POD | EQUAL, SIGSTOP, EPERM},
	{SYS_pidfd_send_signal, 1, IN_POD | EQUAL, SIGSTOP, EPERM},
	/* No network: protocols of their own modules (DCCP, SCTP, UDP-Lite, MPTCP) are only
	 * surface. NETLINK is for getifaddrs(3) and the runtimes' resolvers: the routing protocol.
	 */
	{SYS_socket, 0, IN_POD | OTHER, AF_UNIX, EAFNOSUPPORT},
	{SYS_socket, 2, EQUAL, 33, EPROTONOSUPPORT},
	{SYS_socket, 2, ABOVE, 58, EPROTONOSUPPORT},
	{SYS_socket, 0, EQUAL, AF_UNIX, ALLOW},
	{SYS_socket, 0, EQUAL, AF_INET, ALLOW},
	{SYS_socket, 0, EQUAL, AF_INET6, ALLOW},
	{SYS_socket, 0, OTHER, AF_NETLINK, EAFNOSUPPORT},
	{SYS_socket, 2, OTHER, 0, EPROTONOSUPPORT},
	{SYS_socketpair, 0, OTHER, AF_UNIX, EAFNOSUPPORT},
	/* Reading it, and plain Linux; not switching off address randomisation. */
	{SYS_personality, 0, EQUAL, 0, ALLOW},
	{SYS_personality, 0, EQUAL, 0xffffffff, ALLOW},
	{SYS_personality, 0, ALWAYS, 0, EPERM},
};

/* Where a call ends up: ALLOW, an errno, or one of these. */
enum {
	NEXT = 9000, /* nowhere yet: the instruction after this one */
	KILL,
	TOO_NEW,
	BY_RULES = 10000, /* and an index in rules */
};

enum {
	JUMPS_MAX = 512,
	CHAIN_MAX = 4,
};

/* Verdicts are jumped to, and each is there once, at the end: what a filter costs a box is mostly
 * its length, since the kernel translates it for each. */
struct emitter {
	struct sock_filter *program;
	size_t len, max;
	enum sandbox_place place;
	bool too_far; /* a jump does not fit its field, or there are too many */
	struct jump {
		size_t at;
		bool if_true, placed;
		int verdict;
	} jumps[JUMPS_MAX];
	size_t jumps_len;
};

static void emit(struct emitter *m, uint16_t code, uint32_t k)
{
	if (m->len < m->max)
		m->program[m->len] = (struct sock_filter){.code = code, .k = k};
	m->len++;
}

static void emit_return(struct emitter *m, int verdict)
{
	emit(m, BPF_RET | BPF_K,
	     verdict == ALLOW  ? SECCOMP_RET_ALLOW
	     : verdict == KILL ? SECCOMP_RET_KILL_PROCESS
			       : SECCOMP_RET_ERRNO | (uint32_t)verdict);
}

static void emit_load(struct emitter *m, size_t offset)
{
	emit(m, BPF_LD | BPF_W | BPF_ABS, (uint32_t)offset);
}

/* Has the jump at "at" lead to what comes next. */
static void land(struct emitter *m, size_t at, bool if_true)
{
	size_t distance = m->len - at - 1;

	if (distance > UINT8_MAX)
		m->too_far = true;
	else if (at < m->max && if_true)
		m->program[at].jt = (uint8_t)distance;
	else if (at < m->max)
		m->program[at].jf = (uint8_t)distance;
}

static void lead(struct emitter *m, size_t at, bool if_true, int verdict)
{
	if (verdict == NEXT)
		return;
	if (m->jumps_len == JUMPS_MAX)
		m->too_far = true;
	else
		m->jumps[m->jumps_len++] =
			(struct jump){.at = at, .if_true = if_true, .verdict = verdict};
}

static void emit_test(struct emitter *m, uint16_t test, uint32_t value, int yes, int no)
{
	emit(m, BPF_JMP | test | BPF_K, value);
	lead(m, m->len - 1, true, yes);
	lead(m, m->len - 1, false, no);
}

static bool is_in_force(const struct rule *rule, enum sandbox_place place)
{
	return !(rule->op & IN_POD) || place == SANDBOX_IN_POD;
}

/* The next rule of the same call, after rules[i]; 0 none. */
static size_t next_rule(const struct emitter *m, size_t i)
{
	int number = rules[i].number;

	for (i++; i < ARRAY_SIZE(rules) && rules[i].number == number; i++)
		if (is_in_force(&rules[i], m->place))
			return i;
	return 0;
}

/* All rules of one call, of which rules[i] is the first. */
static void emit_call(struct emitter *m, size_t i)
{
	int loaded = -1;
	size_t next;

	do {
		const struct rule *rule = &rules[i];
		int otherwise;

		next = next_rule(m, i);
		otherwise = next ? NEXT : ALLOW;
		/* Little-endian: the low half of an argument comes first. */
		if (loaded != rule->arg && (rule->op & ~IN_POD) != ALWAYS)
			emit_load(m, offsetof(struct seccomp_data, args) +
					     rule->arg * sizeof(uint64_t));
		loaded = rule->arg;
		switch ((enum op)(rule->op & ~IN_POD)) {
		case IN_POD:
		case ALWAYS:
			emit_return(m, rule->error);
			break;
		case EQUAL:
			emit_test(m, BPF_JEQ, rule->value, rule->error, otherwise);
			break;
		case OTHER:
			emit_test(m, BPF_JEQ, rule->value, otherwise, rule->error);
			break;
		case ABOVE:
			emit_test(m, BPF_JGT, rule->value, rule->error, otherwise);
			break;
		case ANY_BIT:
			emit_test(m, BPF_JSET, rule->value, rule->error, otherwise);
			break;
		}
		i = next;
	} while (next);
}

/* Neighbouring calls with the same verdict. */
struct range {
	uint32_t first;
	int verdict;
};

/* The last one begins after all that are known. */
static size_t find_ranges(enum sandbox_place place, struct range ranges[static NR_NEWEST_KNOWN + 2])
{
	int verdicts[NR_NEWEST_KNOWN + 1];
	size_t n = 0;

	for (uint32_t nr = 0; nr <= NR_NEWEST_KNOWN; nr++)
		verdicts[nr] = ALLOW;
	for (size_t i = 0; i < ARRAY_SIZE(denied); i++)
		verdicts[denied[i].number] = denied[i].error;
	for (size_t i = ARRAY_SIZE(rules); i-- > 0;)
		if (is_in_force(&rules[i], place))
			verdicts[rules[i].number] = BY_RULES + (int)i;
	for (uint32_t nr = 0; nr <= NR_NEWEST_KNOWN; nr++)
		if (nr == 0 || verdicts[nr] != verdicts[nr - 1])
			ranges[n++] = (struct range){.first = nr, .verdict = verdicts[nr]};
	ranges[n++] = (struct range){.first = NR_NEWEST_KNOWN + 1, .verdict = TOO_NEW};
	return n;
}

/* Whether all but a few single calls are allowed. ranges[n] is there. */
static bool is_chain(const struct range *ranges, size_t n)
{
	size_t singles = 0;

	for (size_t i = 0; i < n; i++) {
		if (ranges[i].verdict != ALLOW && ranges[i].first + 1 != ranges[i + 1].first)
			return false;
		singles += ranges[i].verdict != ALLOW;
	}
	return singles > 0 && singles <= CHAIN_MAX;
}

static void emit_chain(struct emitter *m, const struct range *ranges, size_t n)
{
	size_t last = n - 1;

	while (ranges[last].verdict == ALLOW)
		last--;
	for (size_t i = 0; i <= last; i++)
		if (ranges[i].verdict != ALLOW)
			emit_test(m, BPF_JEQ, ranges[i].first, ranges[i].verdict,
				  i == last ? ALLOW : NEXT);
}

/* A search tree: when a filter is installed the kernel also runs it once for each call there is, to
 * know which are always allowed. ranges[n] is there; n is more than 1. */
static void emit_tree(struct emitter *m, const struct range *ranges, size_t n)
{
	const uint32_t middle = (ranges[0].first + ranges[n].first) / 2;
	size_t at = m->len, half = 1;

	if (is_chain(ranges, n)) {
		emit_chain(m, ranges, n);
		return;
	}
	while (half + 1 < n && ranges[half].first < middle)
		half++;
	emit_test(m, BPF_JGE, ranges[half].first, n - half == 1 ? ranges[half].verdict : NEXT,
		  half == 1 ? ranges[0].verdict : NEXT);
	if (half > 1)
		emit_tree(m, ranges, half);
	if (n - half > 1) {
		land(m, at, true);
		emit_tree(m, ranges + half, n - half);
	}
}

static void emit_too_new(struct emitter *m)
{
#ifdef X32_BIT
	/* -1 is what a tracer sets to skip a call, not x32. */
	emit_test(m, BPF_JEQ, 0xffffffff, ENOSYS, NEXT);
	emit_test(m, BPF_JSET, X32_BIT, KILL, NEXT);
#endif
	emit_return(m, ENOSYS);
}

/* What is jumped to: first what leads on to something else, then the ends. */
static void place_verdicts(struct emitter *m, bool ends)
{
	for (size_t i = 0; i < m->jumps_len; i++) {
		const int verdict = m->jumps[i].verdict;

		if (m->jumps[i].placed || (verdict < TOO_NEW) != ends)
			continue;
		for (size_t k = i; k < m->jumps_len; k++) {
			if (m->jumps[k].verdict != verdict)
				continue;
			land(m, m->jumps[k].at, m->jumps[k].if_true);
			m->jumps[k].placed = true;
		}
		if (verdict >= BY_RULES)
			emit_call(m, (size_t)(verdict - BY_RULES));
		else if (verdict == TOO_NEW)
			emit_too_new(m);
		else
			emit_return(m, verdict);
	}
}

int sandbox_seccomp_program(enum sandbox_place place, struct sock_filter *program, size_t max)
{
	struct emitter m = {.program = program, .max = max, .place = place};
	struct range ranges[NR_NEWEST_KNOWN + 2];
	size_t n = find_ranges(place, ranges);

	emit_load(&m, offsetof(struct seccomp_data, arch));
	emit_test(&m, BPF_JEQ, ARCH, NEXT, KILL);
	emit_load(&m, offsetof(struct seccomp_data, nr));
	emit_test(&m, BPF_JGE, ranges[n - 1].first, TOO_NEW, NEXT);
	emit_tree(&m, ranges, n - 1);
	place_verdicts(&m, false);
	place_verdicts(&m, true);
	return m.len <= max && !m.too_far ? (int)m.len : -E2BIG;
}

int sandbox_seccomp_compile(enum sandbox_place place, int *ret_fd, struct err *e)
{
	struct sock_filter program[1024];
	int len = sandbox_seccomp_program(place, program, ARRAY_SIZE(program));
	AUTO_FD int fd = memfd_create("kiln-seccomp", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	size_t size = (size_t)len * sizeof(program[0]);

	if (len < 0)
		return err_errno(e, len, "could not compile the system call policy");
	if (fd < 0 || write(fd, program, size) != (ssize_t)size ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		return err_errno(e, -errno, "could not write the system call policy");
	*ret_fd = TAKE_FD(fd);
	return 0;
}
