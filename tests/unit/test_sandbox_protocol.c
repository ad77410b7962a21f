/* SPDX-License-Identifier: Apache-2.0 */
#include "unit.h"

#include "base/cleanup.h"
#include "sandbox/protocol.h"
#include "sandbox/seccomp.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

static void table_permits_each_request_where_it_belongs(void **state)
{
	/* E P R U C D: empty preparing ready running collecting dying; + allowed, x crossed. */
	static const struct {
		unsigned int type;
		const char *row;
	} rows[] = {
		{SANDBOX_PREPARE, "+....."},
		{SANDBOX_START, "x.+..x"},
		{SANDBOX_KILL, "x..++x"},
		{SANDBOX_RELEASE, "x++++x"},
		{SANDBOX_LIMIT, "x..+xx"},
		{SANDBOX_CONFIGURE, "......"},
		{0, "......"},
		{SANDBOX_EVENT_EXITED, "......"},
		{99, "......"},
	};
	static const char marks[] = ".+x";

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		for (unsigned int s = 0; s < _SANDBOX_BOX_STATE_MAX; s++)
			assert_int_equal(marks[sandbox_permit(rows[i].type, s)], rows[i].row[s]);
	assert_int_equal(sandbox_permit(SANDBOX_PREPARE, _SANDBOX_BOX_STATE_MAX),
			 SANDBOX_FORBIDDEN);
}

static struct sandbox_header head(uint16_t type)
{
	return (struct sandbox_header){
		.magic = SANDBOX_MAGIC, .version = SANDBOX_PROTOCOL_VERSION, .type = type};
}

static void requests_are_checked(void **state)
{
	struct sandbox_prepare prepare = {.h = head(SANDBOX_PREPARE)};
	struct sandbox_prepare bad;

	(void)state;
	assert_int_equal(sandbox_request_check(&prepare, sizeof(prepare), 0, 1), 0);
	for (size_t len = 0; len < sizeof(prepare); len++)
		assert_int_equal(sandbox_request_check(&prepare, len, 0, 1), -EBADMSG);
	assert_int_equal(sandbox_request_check(&prepare, sizeof(prepare), 1, 1), -EBADMSG);
	assert_int_equal(sandbox_request_check(&prepare, sizeof(prepare), 0, 0), -EBADMSG);
#define REFUSED(change)                                                                            \
	do {                                                                                       \
		bad = prepare;                                                                     \
		bad.h.change;                                                                      \
		assert_int_equal(sandbox_request_check(&bad, sizeof(bad), 0, 1), -EBADMSG);        \
	} while (0)
	REFUSED(magic = 0);
	REFUSED(version = 9);
	REFUSED(type = 0);
	REFUSED(type = 5);
	REFUSED(type = 999);
	REFUSED(box = 1);
#undef REFUSED
}

static void configure_is_checked(void **state)
{
	const struct sandbox_configure good = {
		.h = head(SANDBOX_CONFIGURE),
		.boxes = 2,
		.uid_base = 5000,
		.rung = SANDBOX_RUNG_CGROUP1,
		.flags = SANDBOX_CONFIGURE_FILTER,
		.trees = 1 << SANDBOX_TREE_V2 | 1 << SANDBOX_TREE_MEMORY | 1 << SANDBOX_TREE_PIDS,
		.group = "kiln-sandbox.1.2.3"};
	struct sandbox_configure c = good;

	(void)state;
	assert_int_equal(sandbox_request_check(&c, sizeof(c), 8, 0), 0);
	assert_int_equal(sandbox_request_check(&c, sizeof(c), 7, 0), -EBADMSG);
	assert_int_equal(sandbox_request_check(&c, sizeof(c), 9, 0), -EBADMSG);
	c.rung = SANDBOX_RUNG_RLIMIT;
	c.trees = c.flags = c.uid_base = 0;
	assert_int_equal(sandbox_request_check(&c, sizeof(c), 1, 0), 0);
#define REFUSED(change)                                                                            \
	do {                                                                                       \
		c = good;                                                                          \
		c.change;                                                                          \
		assert_int_equal(sandbox_request_check(&c, sizeof(c), 8, 0), -EBADMSG);            \
	} while (0)
	REFUSED(boxes = 0);
	REFUSED(boxes = SANDBOX_BOXES_MAX + 1);
	REFUSED(rung = SANDBOX_RUNG_AUTO);
	REFUSED(rung = _SANDBOX_RUNG_MAX);
	REFUSED(rung = SANDBOX_RUNG_CGROUP2);
	REFUSED(trees = 7u << 4);
	REFUSED(trees = 1 << SANDBOX_TREE_MEMORY);
	REFUSED(uid_base = 999);
	REFUSED(uid_base = UINT32_MAX);
	/* Names a folder that is another's, or goes elsewhere. */
	REFUSED(group[0] = 0);
	REFUSED(group[3] = '/');
	REFUSED(group[14] = '/');
	c = good;
	memset(c.group, 'a', sizeof(c.group));
	memcpy(c.group, good.group, strlen(good.group));
	assert_int_equal(sandbox_request_check(&c, sizeof(c), 8, 0), -EBADMSG);
#undef REFUSED
}

static void start_counts_its_descriptors(void **state)
{
	struct sandbox_start start = {
		.h = head(SANDBOX_START), .inputs = 1, .mapped = 2, .target = {0, 1}};

	(void)state;
	assert_int_equal(sandbox_request_check(&start, sizeof(start), 4, 1), 0);
	assert_int_equal(sandbox_request_check(&start, sizeof(start), 3, 1), -EBADMSG);
	assert_int_equal(sandbox_request_check(&start, sizeof(start), 5, 1), -EBADMSG);
	start.flags = SANDBOX_START_OUTPUT;
	assert_int_equal(sandbox_request_check(&start, sizeof(start), 5, 1), 0);
	start.target[1] = 0;
	assert_int_equal(sandbox_request_check(&start, sizeof(start), 5, 1), -EBADMSG);
	start.target[1] = SANDBOX_TARGET_FD_MAX;
	assert_int_equal(sandbox_request_check(&start, sizeof(start), 5, 1), -EBADMSG);
	start.target[1] = 1;
	start.mapped = 255;
	assert_int_equal(sandbox_request_check(&start, sizeof(start), 5, 1), -EBADMSG);
}

static void limits_missing_or_absurd_are_refused(void **state)
{
	const struct sandbox_limits good = {
		.cpu_usec = 1, .wall_usec = 1, .memory_bytes = 1 << 20, .processes = 1};
	struct sandbox_limits l = good;

	(void)state;
	assert_int_equal(sandbox_limits_check(&l), 0);
	assert_int_equal(l.disk_bytes, 1 << 20);
	assert_int_equal(l.file_bytes, 1 << 20);
	assert_int_equal(l.open_files, 256);
#define REFUSED(change)                                                                            \
	do {                                                                                       \
		l = good;                                                                          \
		l.change;                                                                          \
		assert_int_equal(sandbox_limits_check(&l), -EINVAL);                               \
	} while (0)
	REFUSED(cpu_usec = 0);
	REFUSED(wall_usec = 0);
	REFUSED(memory_bytes = 0);
	REFUSED(processes = 0);
	REFUSED(cpu_usec = UINT64_MAX);
	REFUSED(wall_usec = UINT64_MAX);
	REFUSED(memory_bytes = UINT64_MAX);
	REFUSED(disk_bytes = UINT64_MAX);
	REFUSED(processes = UINT32_MAX);
#undef REFUSED
}

/* What the kernel would do with the program: enough of classic BPF for it. */
static uint32_t judge(const struct sock_filter *p, size_t len, const struct seccomp_data *data)
{
	uint32_t a = 0;

	for (size_t pc = 0; pc < len; pc++) {
		const struct sock_filter *f = &p[pc];
		bool yes = false;

		switch (f->code) {
		case BPF_LD | BPF_W | BPF_ABS:
			assert_true(f->k + sizeof(a) <= sizeof(*data));
			memcpy(&a, (const char *)data + f->k, sizeof(a));
			continue;
		case BPF_RET | BPF_K:
			return f->k;
		case BPF_JMP | BPF_JEQ | BPF_K:
			yes = a == f->k;
			break;
		case BPF_JMP | BPF_JGT | BPF_K:
			yes = a > f->k;
			break;
		case BPF_JMP | BPF_JGE | BPF_K:
			yes = a >= f->k;
			break;
		case BPF_JMP | BPF_JSET | BPF_K:
			yes = (a & f->k) != 0;
			break;
		default:
			fail_msg("instruction %zu has code %u", pc, f->code);
		}
		pc += yes ? f->jt : f->jf;
	}
	fail_msg("the program ran off its end");
	return 0;
}

#define DENIED(error) (SECCOMP_RET_ERRNO | (error))

static void policy_judges_calls(void **state)
{
	static const struct {
		int nr;
		uint64_t args[3];
		uint32_t action;
	} calls[] = {
		{SYS_read, {0}, SECCOMP_RET_ALLOW},
		{SYS_execve, {0}, SECCOMP_RET_ALLOW},
		{SYS_clone, {SIGCHLD}, SECCOMP_RET_ALLOW},
		{SYS_clone, {0x10000000 | SIGCHLD}, DENIED(EPERM)},
		{SYS_clone3, {0}, DENIED(ENOSYS)},
		{SYS_keyctl, {0}, DENIED(ENOSYS)},
		{SYS_mount, {0}, DENIED(EPERM)},
		{SYS_socket, {AF_UNIX, 1, 0}, SECCOMP_RET_ALLOW},
		{SYS_socket, {AF_INET, 1, 6}, SECCOMP_RET_ALLOW},
		{SYS_socket, {AF_INET, 1, 132}, DENIED(EPROTONOSUPPORT)},
		{SYS_socket, {AF_NETLINK, 3, 0}, SECCOMP_RET_ALLOW},
		{SYS_socket, {AF_NETLINK, 3, 9}, DENIED(EPROTONOSUPPORT)},
		{SYS_socket, {40, 1, 0}, DENIED(EAFNOSUPPORT)},
		{SYS_socket, {UINT64_C(1) << 32 | 40, 1, 0}, DENIED(EAFNOSUPPORT)},
		{SYS_socketpair, {AF_UNIX}, SECCOMP_RET_ALLOW},
		{SYS_socketpair, {AF_NETLINK}, DENIED(EAFNOSUPPORT)},
		{SYS_personality, {0xffffffff}, SECCOMP_RET_ALLOW},
		{SYS_personality, {0x40000}, DENIED(EPERM)},
		{SYS_prlimit64, {0}, SECCOMP_RET_ALLOW},
		{SYS_prlimit64, {1}, DENIED(EPERM)},
		{1000, {0}, DENIED(ENOSYS)},
		{-1, {0}, DENIED(ENOSYS)},
#ifdef __x86_64__
		{0x40000000, {0}, SECCOMP_RET_KILL_PROCESS}, /* x32 */
		{0x40000000 | 520, {0}, SECCOMP_RET_KILL_PROCESS},
#endif
		{SYS_ioctl, {1, TCGETS}, SECCOMP_RET_ALLOW},
		{SYS_ioctl, {1, TIOCSTI}, DENIED(EPERM)},
		{SYS_ioctl, {1, TIOCLINUX}, DENIED(EPERM)},
		{SYS_fcntl, {1, F_GETFL}, SECCOMP_RET_ALLOW},
		{SYS_fcntl, {1, F_NOTIFY}, DENIED(EPERM)},
		{466, {0}, SECCOMP_RET_ALLOW},
		{467, {0}, DENIED(ENOSYS)},
	};
	struct sock_filter program[1024];
	int len = sandbox_seccomp_program(SANDBOX_IN_NAMESPACES, program, ARRAY_SIZE(program));
	struct seccomp_data data;
	int denied;

	(void)state;
	/* Each box pays for each instruction. */
	assert_in_range(len, 1, 130);
	assert_int_equal(sandbox_seccomp_program(SANDBOX_IN_NAMESPACES, program, 10), -E2BIG);
	len = sandbox_seccomp_program(SANDBOX_IN_NAMESPACES, program, ARRAY_SIZE(program));
	for (size_t i = 0; i < ARRAY_SIZE(calls); i++) {
#ifdef __x86_64__
		data = (struct seccomp_data){.nr = calls[i].nr, .arch = AUDIT_ARCH_X86_64};
#else
		data = (struct seccomp_data){.nr = calls[i].nr, .arch = AUDIT_ARCH_AARCH64};
#endif
		for (size_t k = 0; k < 3; k++)
			data.args[k] = calls[i].args[k];
		if (judge(program, (size_t)len, &data) != calls[i].action)
			fail_msg("row %zu (call %d) is judged 0x%x", i, calls[i].nr,
				 judge(program, (size_t)len, &data));
	}
	/* No denied call is lost in the search, and none that is not: their number is known. */
	denied = 0;
	for (int nr = 0; nr <= 466; nr++) {
		data.nr = nr;
		memset(data.args, 0, sizeof(data.args));
		denied += judge(program, (size_t)len, &data) != SECCOMP_RET_ALLOW;
	}
#ifdef __x86_64__
	assert_int_equal(denied, 73);
#else
	assert_true(denied > 50);
#endif
	data = (struct seccomp_data){.nr = SYS_read, .arch = AUDIT_ARCH_I386};
	assert_int_equal(judge(program, (size_t)len, &data), SECCOMP_RET_KILL_PROCESS);
}

static void policy_in_a_pod_denies_more(void **state)
{
	static const struct {
		int nr;
		uint64_t args[3];
		uint32_t action;
	} calls[] = {
		{SYS_socket, {AF_UNIX, SOCK_STREAM, 0}, SECCOMP_RET_ALLOW},
		{SYS_socket, {AF_INET, SOCK_STREAM, 0}, DENIED(EAFNOSUPPORT)},
		{SYS_socket, {AF_NETLINK, SOCK_RAW, 0}, DENIED(EAFNOSUPPORT)},
		{SYS_kill, {1, SIGKILL}, SECCOMP_RET_ALLOW},
		{SYS_kill, {1, SIGSTOP}, DENIED(EPERM)},
		{SYS_tgkill, {1, 1, SIGSTOP}, DENIED(EPERM)},
		{SYS_pidfd_send_signal, {3, SIGSTOP}, DENIED(EPERM)},
		{SYS_prlimit64, {0}, SECCOMP_RET_ALLOW},
		{SYS_prlimit64, {77}, DENIED(EPERM)},
	};
	struct sock_filter program[1024];
	int len = sandbox_seccomp_program(SANDBOX_IN_POD, program, ARRAY_SIZE(program));
	struct seccomp_data data;

	(void)state;
	assert_true(len > 0);
	for (size_t i = 0; i < ARRAY_SIZE(calls); i++) {
#ifdef __x86_64__
		data = (struct seccomp_data){.nr = calls[i].nr, .arch = AUDIT_ARCH_X86_64};
#else
		data = (struct seccomp_data){.nr = calls[i].nr, .arch = AUDIT_ARCH_AARCH64};
#endif
		memcpy(data.args, calls[i].args, sizeof calls[i].args);
		if (judge(program, (size_t)len, &data) != calls[i].action)
			fail_msg("row %zu (call %d) is judged 0x%x", i, calls[i].nr,
				 judge(program, (size_t)len, &data));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(table_permits_each_request_where_it_belongs),
		cmocka_unit_test(requests_are_checked),
		cmocka_unit_test(configure_is_checked),
		cmocka_unit_test(start_counts_its_descriptors),
		cmocka_unit_test(limits_missing_or_absurd_are_refused),
		cmocka_unit_test(policy_judges_calls),
		cmocka_unit_test(policy_in_a_pod_denies_more),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
