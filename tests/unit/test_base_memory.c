/* SPDX-License-Identifier: Apache-2.0 */
#include "base/memory.h"

#include "base/fs.h"
#include "unit.h"

#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MIB (UINT64_C(1) << 20)

/* A host of files: what /proc and /sys say there. */
static char root[] = "/tmp/kiln-memory-XXXXXX";

static void put(const char *name, const char *text)
{
	char path[PATH_MAX];
	FILE *f;

	(void)snprintf(path, sizeof(path), "%s%s", root, name);
	*strrchr(path, '/') = '\0';
	assert_int_equal(fs_make_dirs(path, 0755, NULL), 0);
	(void)snprintf(path, sizeof(path), "%s%s", root, name);
	f = fopen(path, "w");
	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
	(void)st;
	(void)kind;
	(void)ftw;
	return remove(path);
}

static int make_host(void **state)
{
	(void)state;
	memcpy(strrchr(root, '-') + 1, "XXXXXX", 6);
	return mkdtemp(root) ? 0 : -1;
}

static int remove_host(void **state)
{
	(void)state;
	return nftw(root, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static void cgroup_limit_absent_is_none(void **state)
{
	(void)state;
	assert_true(memory_cgroup_limit(root) == UINT64_MAX);
	put("/proc/self/cgroup", "0::/\n");
	assert_true(memory_cgroup_limit(root) == UINT64_MAX);
	put("/sys/fs/cgroup/memory.max", "max\n");
	assert_true(memory_cgroup_limit(root) == UINT64_MAX);
}

static void cgroup_limit_of_version_2_is_the_tightest_above(void **state)
{
	(void)state;
	put("/proc/self/cgroup", "0::/a/b/c\n");
	put("/sys/fs/cgroup/a/b/c/memory.max", "max\n");
	put("/sys/fs/cgroup/a/b/memory.max", "104857600\n");
	put("/sys/fs/cgroup/a/memory.max", "209715200\n");
	assert_true(memory_cgroup_limit(root) == 100 * MIB);
}

static void cgroup_limit_of_version_1_is_of_its_controller(void **state)
{
	(void)state;
	put("/proc/self/cgroup",
	    "5:cpu,cpuacct:/x\n4:hugetlb,memory:/pod\n3:pids:/pod\n0::/y\nnonsense\n");
	put("/sys/fs/cgroup/memory/pod/memory.limit_in_bytes", "52428800\n");
	put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
	put("/sys/fs/cgroup/memory/x/memory.limit_in_bytes", "1\n");
	assert_true(memory_cgroup_limit(root) == 50 * MIB);
}

/* As in a container that sees the host's path, and its own group at the top. */
static void cgroup_limit_with_unknown_path_is_that_of_the_top(void **state)
{
	(void)state;
	put("/proc/self/cgroup", "4:memory:/docker/0123\n");
	put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "268435456\n");
	assert_true(memory_cgroup_limit(root) == 256 * MIB);
}

static void total_is_something(void **state)
{
	(void)state;
	assert_true(memory_total() > MIB);
	assert_true(memory_total() <= memory_cgroup_limit(""));
}

static void to_spare_is_a_bounded_share(void **state)
{
	static const struct {
		uint64_t total_mib;
		unsigned processes;
		uint64_t spare_mib;
	} cases[] = {
		{0, 1, 0},	  {1024, 1, 0},	    {2047, 1, 0},    {2048, 1, 128},
		{4096, 1, 256},	  {4096, 0, 256},   {4096, 2, 128},  {4096, 4, 0},
		{65536, 1, 1024}, {65536, 4, 1024}, {65536, 8, 512}, {16384, 8, 128},
		{16384, 16, 0},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		assert_true(memory_to_spare(cases[i].total_mib * MIB, cases[i].processes) ==
			    cases[i].spare_mib * MIB);
}

#define WITH_HOST(test) cmocka_unit_test_setup_teardown(test, make_host, remove_host)

static const struct CMUnitTest tests[] = {
	WITH_HOST(cgroup_limit_absent_is_none),
	WITH_HOST(cgroup_limit_of_version_2_is_the_tightest_above),
	WITH_HOST(cgroup_limit_of_version_1_is_of_its_controller),
	WITH_HOST(cgroup_limit_with_unknown_path_is_that_of_the_top),
	cmocka_unit_test(total_is_something),
	cmocka_unit_test(to_spare_is_a_bounded_share),
};

UNIT_MAIN(tests)
