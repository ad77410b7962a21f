/* SPDX-License-Identifier: Apache-2.0 */
#include "unit.h"

#include "base/cleanup.h"
#include "base/fs.h"
#include "runner/charge.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define V1_GROUPS                                                                                  \
	"4:memory:/pod/kiln-sandbox.1.2.3/b4\n3:pids:/pod/kiln-sandbox.1.2.3/b4\n0::/pod\n"
#define V2_GROUPS "0::/pod/kiln-sandbox.1.2.3/b4\n"

/* A folder that looks like a host: "proc" is its /proc, and hierarchies are beside that. */
struct world {
	char dir[64];
};

static void write_file(const struct world *w, const char *name, const char *text)
{
	char path[512];
	AUTO_FD int fd = -EBADF;

	assert_true(snprintf(path, sizeof(path), "%s/%s", w->dir, name) < (int)sizeof(path));
	*strrchr(path, '/') = '\0';
	assert_int_equal(fs_make_dirs(path, 0755, NULL), 0);
	path[strlen(path)] = '/';
	fd = open(path, O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC, 0644);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
}

/* Mounts with the hierarchy of the kind named, of which the part "root" is shown. */
static void write_mounts(const struct world *w, const char *root, const char *type,
			 const char *options)
{
	char text[1024];

	(void)snprintf(text, sizeof(text),
		       "20 1 0:1 / /proc rw - proc proc rw\n"
		       "30 1 0:2 / %s/cpu rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
		       "31 1 0:3 %s %s/groups rw,nosuid - %s cgroup %s\n",
		       w->dir, root, w->dir, type, options);
	write_file(w, "proc/self/mountinfo", text);
}

static int setup(void **state)
{
	static struct world w;

	(void)snprintf(w.dir, sizeof(w.dir), "/tmp/kiln-charge-XXXXXX");
	if (!mkdtemp(w.dir))
		return -1;
	*state = &w;
	return 0;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
	(void)st;
	(void)type;
	(void)at;
	return remove(path);
}

static int teardown(void **state)
{
	return nftw(((const struct world *)*state)->dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static int read_of(const struct world *w, uint32_t pid, uint64_t *ret_bytes)
{
	AUTO(charge_close) struct charge *c = NULL;
	char proc[128];
	struct err e;

	(void)snprintf(proc, sizeof(proc), "%s/proc", w->dir);
	assert_int_equal(charge_open(proc, &c, &e), 0);
	return charge_read(c, pid, ret_bytes);
}

static void box_in_a_memory_hierarchy_is_read(void **state)
{
	const struct world *w = *state;
	uint64_t bytes = 0;

	write_mounts(w, "/", "cgroup", "rw,memory");
	write_file(w, "proc/77/cgroup", V1_GROUPS);
	write_file(w, "groups/pod/kiln-sandbox.1.2.3/b4/memory.usage_in_bytes", "5242880\n");
	assert_int_equal(read_of(w, 77, &bytes), 0);
	assert_int_equal(bytes, 5242880);
}

static void box_in_the_one_hierarchy_is_read(void **state)
{
	const struct world *w = *state;
	uint64_t bytes = 0;

	write_mounts(w, "/", "cgroup2", "rw,nsdelegate");
	write_file(w, "proc/77/cgroup", V2_GROUPS);
	write_file(w, "groups/pod/kiln-sandbox.1.2.3/b4/memory.current", "4096\n");
	assert_int_equal(read_of(w, 77, &bytes), 0);
	assert_int_equal(bytes, 4096);
}

/* A container without its own view of the groups. */
static void part_that_is_not_mounted_is_left_out(void **state)
{
	const struct world *w = *state;
	uint64_t bytes = 0;

	write_mounts(w, "/pod", "cgroup", "rw,memory");
	write_file(w, "proc/77/cgroup", V1_GROUPS);
	write_file(w, "groups/kiln-sandbox.1.2.3/b4/memory.usage_in_bytes", "8192\n");
	assert_int_equal(read_of(w, 77, &bytes), 0);
	assert_int_equal(bytes, 8192);
}

/* Its number would be everybody's. */
static void group_of_no_box_is_not_read(void **state)
{
	const struct world *w = *state;
	uint64_t bytes = 1;

	write_mounts(w, "/", "cgroup", "rw,memory");
	write_file(w, "proc/77/cgroup", "4:memory:/pod\n0::/pod/kiln-sandbox.1.2.3/b4\n");
	write_file(w, "groups/pod/memory.usage_in_bytes", "999999999\n");
	assert_int_equal(read_of(w, 77, &bytes), -ENOENT);
	assert_int_equal(read_of(w, 78, &bytes), -ENOENT);
	assert_int_equal(bytes, 1);
}

static void number_that_is_none_is_not_read(void **state)
{
	const struct world *w = *state;
	uint64_t bytes = 1;

	write_mounts(w, "/", "cgroup2", "rw");
	write_file(w, "proc/77/cgroup", V2_GROUPS);
	assert_int_equal(read_of(w, 77, &bytes), -ENOENT); /* not counted there: no file */
	write_file(w, "groups/pod/kiln-sandbox.1.2.3/b4/memory.current", "max\n");
	assert_int_equal(read_of(w, 77, &bytes), -ENOENT);
	assert_int_equal(bytes, 1);
}

static void host_that_counts_no_memory_is_no_failure(void **state)
{
	const struct world *w = *state;
	uint64_t bytes = 1;

	write_mounts(w, "/", "cgroup", "rw,pids");
	write_file(w, "proc/77/cgroup", V1_GROUPS);
	assert_int_equal(read_of(w, 77, &bytes), -ENOENT);
	assert_int_equal(bytes, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(box_in_a_memory_hierarchy_is_read, setup, teardown),
		cmocka_unit_test_setup_teardown(box_in_the_one_hierarchy_is_read, setup, teardown),
		cmocka_unit_test_setup_teardown(part_that_is_not_mounted_is_left_out, setup,
						teardown),
		cmocka_unit_test_setup_teardown(group_of_no_box_is_not_read, setup, teardown),
		cmocka_unit_test_setup_teardown(number_that_is_none_is_not_read, setup, teardown),
		cmocka_unit_test_setup_teardown(host_that_counts_no_memory_is_no_failure, setup,
						teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
