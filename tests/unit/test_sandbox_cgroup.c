/* SPDX-License-Identifier: Apache-2.0 */
/* The ladder of limits against fake cgroup trees: plain directories, with the files that the kernel
 * would put there. */
#include "unit.h"

#include "base/cleanup.h"
#include "sandbox/cgroup.h"
#include "sandbox/host.h"
#include "sandbox/io.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct tree {
	char root[64], mountinfo[96], own[96];
};

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static void put(const struct tree *t, const char *name, const char *text)
{
	char path[512];

	(void)snprintf(path, sizeof(path), "%s/%s", t->root, name);
	for (char *slash = strchr(path + strlen(t->root) + 1, '/'); slash;
	     slash = strchr(slash + 1, '/')) {
		*slash = 0;
		(void)mkdir(path, 0755);
		*slash = '/';
	}
	assert_int_equal(io_write_at(AT_FDCWD, path, text, O_CREAT | O_TRUNC), 0);
}

static void expect(const struct tree *t, const char *name, const char *text)
{
	char path[512], found[256];

	(void)snprintf(path, sizeof(path), "%s/%s", t->root, name);
	assert_true(io_read_at(AT_FDCWD, path, found, sizeof(found)) >= 0);
	assert_string_equal(found, text);
}

static void tree_init(struct tree *t, const char *mountinfo, const char *own)
{
	(void)snprintf(t->root, sizeof(t->root), "/tmp/kiln-cgroup-XXXXXX");
	assert_non_null(mkdtemp(t->root));
	(void)snprintf(t->mountinfo, sizeof(t->mountinfo), "%s/mountinfo", t->root);
	(void)snprintf(t->own, sizeof(t->own), "%s/own", t->root);
	put(t, "mountinfo", mountinfo);
	put(t, "own", own);
}

static void tree_fini(struct tree *t)
{
	(void)nftw(t->root, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

/* As the client and its spawner do it together, but that the spawner refuses what is no real group.
 */
static int open_tree_at(const struct tree *t, enum sandbox_rung rung, struct groups *g,
			struct limiter *l, struct err *e)
{
	static const struct limiter_ops *const ops[] = {[SANDBOX_RUNG_CGROUP2] = &cgroup2_ops,
							[SANDBOX_RUNG_CGROUP1] = &cgroup1_ops,
							[SANDBOX_RUNG_RLIMIT] = &rlimit_ops};
	const struct groups_options o = {.rung = rung,
					 .spawner = getpid(),
					 .mountinfo = t->mountinfo,
					 .own_cgroups = t->own,
					 .mount_prefix = t->root,
					 .creates_files = true};
	int r = groups_open(g, &o, e);

	if (r < 0)
		return r;
	*l = (struct limiter){
		.ops = ops[g->rung], .has = g->has, .creates_files = true, .proc_fd = -EBADF};
	(void)snprintf(l->name, sizeof(l->name), "%s", g->name);
	for (int i = 0; i < _SANDBOX_TREE_MAX; i++) {
		l->own[i] = g->own[i];
		l->parent[i] = g->parent[i];
	}
	return 0;
}

static void own_file(const struct limiter *l, const char *tree, const char *file, char *name,
		     size_t size)
{
	(void)snprintf(name, size, "%s/%s/%s", tree, l->name, file);
}

#define V2_MOUNT "30 1 0:26 / /cg rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
#define V1_MOUNTS                                                                                  \
	"31 1 0:27 / /memory rw - cgroup cgroup rw,memory\n"                                       \
	"32 1 0:28 / /pids rw - cgroup cgroup rw,pids\n"                                           \
	"33 1 0:29 / /cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"

static const struct sandbox_limits limits = {.cpu_usec = 1000000,
					     .wall_usec = 1000000,
					     .memory_bytes = 64u << 20,
					     .processes = 10,
					     .cpu_rate_permille = 1500};

static void v2_tree(struct tree *t)
{
	tree_init(t, V2_MOUNT, "0::/app\n");
	put(t, "cg/app/cgroup.controllers", "cpu io memory pids\n");
	put(t, "cg/app/cgroup.subtree_control", "");
}

static void cgroup2_delegated_sets_limits(void **state)
{
	struct tree t;
	struct groups g;
	struct limiter l;
	struct leaf leaf;
	struct err e = {0};
	char name[200];

	(void)state;
	v2_tree(&t);
	assert_int_equal(open_tree_at(&t, SANDBOX_RUNG_AUTO, &g, &l, &e), 0);
	assert_int_equal(g.rung, SANDBOX_RUNG_CGROUP2);
	assert_true(l.has & SANDBOX_HAS_CPU_RATE);
	assert_string_equal(g.path, "/app");
	leaf_init(&leaf, 3);
	assert_int_equal(leaf_make(&l, &leaf), 0);
	assert_true(leaf_clone_fd(&leaf) >= 0);
	assert_int_equal(leaf_set(&l, &leaf, &limits), 0);
	own_file(&l, "cg/app", "b3/memory.max", name, sizeof(name));
	expect(&t, name, "67108864");
	own_file(&l, "cg/app", "b3/memory.swap.max", name, sizeof(name));
	expect(&t, name, "0");
	own_file(&l, "cg/app", "b3/memory.oom.group", name, sizeof(name));
	expect(&t, name, "1");
	own_file(&l, "cg/app", "b3/pids.max", name, sizeof(name));
	expect(&t, name, "11");
	own_file(&l, "cg/app", "b3/cpu.max", name, sizeof(name));
	expect(&t, name, "150000 100000");
	limiter_close(&l);
	tree_fini(&t);
}

static void cgroup2_usage_is_read(void **state)
{
	struct tree t;
	struct groups g;
	struct limiter l;
	struct leaf leaf;
	struct usage u;
	char name[200];

	(void)state;
	v2_tree(&t);
	assert_int_equal(open_tree_at(&t, SANDBOX_RUNG_CGROUP2, &g, &l, NULL), 0);
	leaf_init(&leaf, 0);
	assert_int_equal(leaf_make(&l, &leaf), 0);
	assert_true(leaf_usage(&l, &leaf, &u) < 0);
	own_file(&l, "cg/app", "b0/cpu.stat", name, sizeof(name));
	put(&t, name, "usage_usec 12345\nuser_usec 1\nsystem_usec 2\n");
	own_file(&l, "cg/app", "b0/memory.events", name, sizeof(name));
	put(&t, name, "low 0\nhigh 0\nmax 3\noom 2\noom_kill 1\noom_group_kill 1\n");
	own_file(&l, "cg/app", "b0/memory.peak", name, sizeof(name));
	put(&t, name, "4096\n");
	assert_int_equal(leaf_usage(&l, &leaf, &u), 0);
	assert_int_equal(u.cpu_usec, 12345);
	assert_int_equal(u.oom_kills, 1);
	/* The kernel of this tree had no memory.peak when the limiter looked. */
	assert_int_equal(u.memory_peak_bytes, -1);
	l.has |= SANDBOX_HAS_MEMORY_PEAK;
	assert_int_equal(leaf_usage(&l, &leaf, &u), 0);
	assert_int_equal(u.memory_peak_bytes, 4096);
	limiter_close(&l);
	tree_fini(&t);
}

static void cgroup2_without_controllers_falls_back(void **state)
{
	struct tree t;
	struct groups g;
	struct limiter l;
	struct err e = {0};

	(void)state;
	v2_tree(&t);
	put(&t, "cg/app/cgroup.controllers", "cpu io pids\n");
	assert_int_equal(open_tree_at(&t, SANDBOX_RUNG_AUTO, &g, &l, &e), 0);
	assert_int_equal(g.rung, SANDBOX_RUNG_RLIMIT);
	limiter_close(&l);
	assert_true(open_tree_at(&t, SANDBOX_RUNG_CGROUP2, &g, &l, &e) < 0);
	tree_fini(&t);
}

static void cgroup2_members_leaf_nests_beside(void **state)
{
	struct tree t;
	struct groups g;
	struct limiter l;
	struct err e = {0};

	(void)state;
	tree_init(&t, V2_MOUNT, "0::/app/kiln-main\n");
	put(&t, "cg/app/kiln-main/cgroup.procs", "1\n");
	put(&t, "cg/app/cgroup.controllers", "memory pids\n");
	put(&t, "cg/app/cgroup.subtree_control", "");
	assert_int_equal(open_tree_at(&t, SANDBOX_RUNG_AUTO, &g, &l, &e), 0);
	assert_int_equal(g.rung, SANDBOX_RUNG_CGROUP2);
	assert_string_equal(g.path, "/app");
	limiter_close(&l);
	tree_fini(&t);
}

static void cgroup2_mounted_part_is_cut_off_the_path(void **state)
{
	struct tree t;
	struct groups g;
	struct limiter l;
	struct err e = {0};

	(void)state;
	tree_init(&t, "30 1 0:26 /docker/abc /cg rw - cgroup2 cgroup2 rw\n",
		  "0::/docker/abc/app\n");
	put(&t, "cg/app/cgroup.controllers", "memory pids\n");
	put(&t, "cg/app/cgroup.subtree_control", "");
	assert_int_equal(open_tree_at(&t, SANDBOX_RUNG_AUTO, &g, &l, &e), 0);
	assert_string_equal(g.path, "/app");
	limiter_close(&l);
	tree_fini(&t);
}

static void v1_tree(struct tree *t)
{
	tree_init(t, V1_MOUNTS, "4:memory:/a\n8:pids:/\n2:cpu,cpuacct:/\n");
	put(t, "memory/a/x", "");
	put(t, "pids/x", "");
	put(t, "cpuacct/x", "");
}

static void cgroup1_sets_limits_and_attaches(void **state)
{
	struct tree t;
	struct groups g;
	struct limiter l;
	struct leaf leaf;
	struct sandbox_limits some = limits;
	char name[200];

	(void)state;
	v1_tree(&t);
	assert_int_equal(open_tree_at(&t, SANDBOX_RUNG_AUTO, &g, &l, NULL), 0);
	assert_int_equal(g.rung, SANDBOX_RUNG_CGROUP1);
	leaf_init(&leaf, 7);
	assert_int_equal(leaf_make(&l, &leaf), 0);
	assert_int_equal(leaf_clone_fd(&leaf), -EBADF);
	/* No CPU rate on this rung: refused, not ignored. */
	assert_int_equal(leaf_set(&l, &leaf, &some), -EOPNOTSUPP);
	some.cpu_rate_permille = 0;
	l.has |= SANDBOX_HAS_SWAP_LIMIT;
	assert_int_equal(leaf_set(&l, &leaf, &some), 0);
	own_file(&l, "memory/a", "b7/memory.limit_in_bytes", name, sizeof(name));
	expect(&t, name, "67108864");
	own_file(&l, "memory/a", "b7/memory.memsw.limit_in_bytes", name, sizeof(name));
	expect(&t, name, "67108864");
	own_file(&l, "pids", "b7/pids.max", name, sizeof(name));
	expect(&t, name, "11");
	assert_int_equal(leaf_enter(&leaf), 0);
	own_file(&l, "cpuacct", "b7/tasks", name, sizeof(name));
	expect(&t, name, "0");
	limiter_close(&l);
	tree_fini(&t);
}

static void cgroup1_usage_is_read(void **state)
{
	struct tree t;
	struct groups g;
	struct limiter l;
	struct leaf leaf;
	struct usage u;
	char name[200];

	(void)state;
	v1_tree(&t);
	assert_int_equal(open_tree_at(&t, SANDBOX_RUNG_CGROUP1, &g, &l, NULL), 0);
	leaf_init(&leaf, 0);
	assert_int_equal(leaf_make(&l, &leaf), 0);
	own_file(&l, "cpuacct", "b0/cpuacct.usage", name, sizeof(name));
	put(&t, name, "5000000\n");
	own_file(&l, "memory/a", "b0/memory.oom_control", name, sizeof(name));
	put(&t, name, "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n");
	assert_int_equal(leaf_usage(&l, &leaf, &u), 0);
	assert_int_equal(u.cpu_usec, 5000);
	assert_int_equal(u.oom_kills, 2);
	limiter_close(&l);
	tree_fini(&t);
}

static void stale_groups_are_removed_live_ones_kept(void **state)
{
	struct tree t;
	struct groups g;
	struct limiter l, other;
	struct err e = {0};
	struct stat st;
	char live[200], stale[200], foreign[200];

	(void)state;
	v2_tree(&t);
	assert_int_equal(open_tree_at(&t, SANDBOX_RUNG_CGROUP2, &g, &l, &e), 0);
	(void)stat("/proc/self/ns/pid", &st);
	/* Same namespace, a process that is not; another namespace; and our own, alive. */
	(void)snprintf(stale, sizeof(stale), "%s/cg/app/kiln-sandbox.%lu.4194303.1", t.root,
		       (unsigned long)st.st_ino);
	(void)snprintf(foreign, sizeof(foreign), "%s/cg/app/kiln-sandbox.1.4194303.1", t.root);
	(void)snprintf(live, sizeof(live), "%s/cg/app/%s", t.root, l.name);
	assert_int_equal(mkdir(stale, 0755), 0);
	assert_int_equal(mkdir(foreign, 0755), 0);
	assert_int_equal(open_tree_at(&t, SANDBOX_RUNG_CGROUP2, &g, &other, &e), 0);
	assert_int_equal(access(live, F_OK), 0);
	assert_int_equal(access(foreign, F_OK), 0);
	assert_int_equal(access(stale, F_OK), -1);
	limiter_close(&other);
	limiter_close(&l);
	tree_fini(&t);
}

static void leaf_is_removed_and_made_again(void **state)
{
	struct tree t;
	struct groups g;
	struct limiter l;
	struct leaf leaf;

	(void)state;
	v1_tree(&t);
	assert_int_equal(open_tree_at(&t, SANDBOX_RUNG_CGROUP1, &g, &l, NULL), 0);
	leaf_init(&leaf, 1);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(leaf_make(&l, &leaf), 0);
		assert_int_equal(unlinkat(leaf.dir[SANDBOX_TREE_MEMORY], "tasks", 0), 0);
		assert_int_equal(leaf_remove(&l, &leaf), 0);
		assert_int_equal(leaf_remove(&l, &leaf), 0);
	}
	limiter_close(&l);
	tree_fini(&t);
}

static bool exists(const struct tree *t, const struct limiter *l, const char *tree)
{
	char path[512];

	(void)snprintf(path, sizeof(path), "%s/%s/%s/b1", t->root, tree, l->name);
	return access(path, F_OK) == 0;
}

static void leaf_keeps_all_but_memory(void **state)
{
	struct sandbox_limits some = limits;
	struct tree t;
	struct groups g;
	struct limiter l;
	struct leaf leaf;
	uint64_t cpu;
	char name[200];

	(void)state;
	v1_tree(&t);
	some.cpu_rate_permille = 0;
	assert_int_equal(open_tree_at(&t, SANDBOX_RUNG_CGROUP1, &g, &l, NULL), 0);
	leaf_init(&leaf, 1);
	assert_int_equal(leaf_make(&l, &leaf), 0);
	own_file(&l, "cpuacct", "b1/cpuacct.usage", name, sizeof(name));
	put(&t, name, "5000000\n");
	assert_int_equal(leaf_cpu(&l, &leaf, &cpu), 0);
	assert_int_equal(cpu, 5000);
	assert_int_equal(leaf_set(&l, &leaf, &some), 0);
	/* In a fake tree a group with files in it is like a real one with processes. */
	assert_int_equal(leaf_remove(&l, &leaf), -ENOTEMPTY);
	assert_true(exists(&t, &l, "memory/a"));
	assert_int_equal(unlinkat(leaf.dir[SANDBOX_TREE_MEMORY], "memory.limit_in_bytes", 0), 0);
	assert_int_equal(unlinkat(leaf.dir[SANDBOX_TREE_MEMORY], "tasks", 0), 0);
	assert_int_equal(leaf_remove(&l, &leaf), 0);
	assert_false(exists(&t, &l, "memory/a"));
	assert_true(exists(&t, &l, "pids") && exists(&t, &l, "cpuacct"));
	/* The next use: a new group for memory, whose limit is written, and the old counters. */
	assert_int_equal(leaf_make(&l, &leaf), 0);
	assert_int_equal(leaf_set(&l, &leaf, &some), 0);
	own_file(&l, "memory/a", "b1/memory.limit_in_bytes", name, sizeof(name));
	expect(&t, name, "67108864");
	own_file(&l, "cpuacct", "b1/cpuacct.usage", name, sizeof(name));
	put(&t, name, "7000000\n");
	assert_int_equal(leaf_cpu(&l, &leaf, &cpu), 0);
	assert_int_equal(cpu, 7000);
	limiter_close(&l);
	tree_fini(&t);
}

static void rlimit_counts_this_process(void **state)
{
	const struct sandbox_configure c = {.rung = SANDBOX_RUNG_RLIMIT};
	struct limiter l;
	struct leaf leaf;
	struct usage u;

	(void)state;
	assert_int_equal(limiter_open(&l, &c, NULL, NULL), 0);
	leaf_init(&leaf, 0);
	assert_int_equal(leaf_make(&l, &leaf), 0);
	leaf.init = getpid();
	assert_int_equal(leaf_usage(&l, &leaf, &u), 0);
	assert_int_equal(u.memory_peak_bytes, -1);
	assert_int_equal(leaf_remove(&l, &leaf), 0);
	limiter_close(&l);
}

static void what_is_no_group_is_refused(void **state)
{
	const struct sandbox_configure c = {.rung = SANDBOX_RUNG_CGROUP2,
					    .trees = 1 << SANDBOX_TREE_V2};
	int fds[2] = {open("/tmp", O_RDONLY | O_DIRECTORY | O_CLOEXEC),
		      open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
	struct limiter l;
	struct err e = {0};

	(void)state;
	assert_int_equal(limiter_open(&l, &c, fds, &e), -EINVAL);
	assert_string_equal(e.msg, "a group is none of the kernel's");
	cleanup_close(&l.own[SANDBOX_TREE_V2]);
	cleanup_close(&l.parent[SANDBOX_TREE_V2]);
}

/* The probe that looks at a group is gone, and nothing else was made. */
static void groups_are_removed_by_who_made_them(void **state)
{
	struct tree t;
	struct groups g;
	struct limiter l;
	char path[300];

	(void)state;
	v2_tree(&t);
	assert_int_equal(open_tree_at(&t, SANDBOX_RUNG_CGROUP2, &g, &l, NULL), 0);
	(void)snprintf(path, sizeof(path), "%s/cg/app/%s/b-probe", t.root, g.name);
	assert_int_equal(access(path, F_OK), -1);
	*strrchr(path, '/') = 0;
	assert_int_equal(access(path, F_OK), 0);
	/* A fake directory is not empty as the kernel's are. */
	(void)snprintf(path + strlen(path), 32, "/cgroup.subtree_control");
	assert_int_equal(unlink(path), 0);
	*strrchr(path, '/') = 0;
	groups_remove(&g);
	assert_int_equal(access(path, F_OK), -1);
	tree_fini(&t);
}

static void ids_of_others_are_not_chosen(void **state)
{
	uint32_t base = 1;

	(void)state;
	if (geteuid() != 0) {
		assert_int_equal(ids_choose(0, 4, &base, NULL), 0);
		assert_int_equal(base, 0);
		return;
	}
	assert_true(ids_choose(999, 4, &base, NULL) == -EINVAL || base == 0);
	assert_true(ids_choose(0, 4, &base, NULL) == 0 && (base == 0 || base >= SANDBOX_UID_MIN));
}

static void profile_is_looked_at(void **state)
{
	const struct sandbox_bind from[] = {
		{.source = "/usr"},
		{.source = "/does/not/exist", .flags = SANDBOX_BIND_OPTIONAL},
		{.source = "/proc/self", .target = "/here"},
		{.source = "/dev/null", .target = "/null"},
		{.source = "text", .target = "/link", .flags = SANDBOX_BIND_SYMLINK},
	};
	struct sandbox_bind to[ARRAY_SIZE(from)];
	struct err e = {0};
	size_t n;

	(void)state;
	assert_int_equal(profile_look(from, ARRAY_SIZE(from), to, &n, &e), 0);
	assert_int_equal(n, 4);
	assert_string_equal(to[0].target, "/usr");
	assert_int_equal(to[0].flags, SANDBOX_BIND_FOLDER);
	assert_int_equal(to[1].flags, SANDBOX_BIND_SYMLINK);
	assert_string_equal(to[1].target, "/here");
	assert_true(to[1].source[0] >= '1' && to[1].source[0] <= '9');
	assert_int_equal(to[2].flags, 0);
	assert_string_equal(to[3].source, "text");
	to[0] = (struct sandbox_bind){.source = "/does/not/exist"};
	assert_int_equal(profile_look(to, 1, to + 1, &n, &e), -ENOENT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(cgroup2_delegated_sets_limits),
		cmocka_unit_test(cgroup2_usage_is_read),
		cmocka_unit_test(cgroup2_without_controllers_falls_back),
		cmocka_unit_test(cgroup2_members_leaf_nests_beside),
		cmocka_unit_test(cgroup2_mounted_part_is_cut_off_the_path),
		cmocka_unit_test(cgroup1_sets_limits_and_attaches),
		cmocka_unit_test(cgroup1_usage_is_read),
		cmocka_unit_test(stale_groups_are_removed_live_ones_kept),
		cmocka_unit_test(leaf_is_removed_and_made_again),
		cmocka_unit_test(leaf_keeps_all_but_memory),
		cmocka_unit_test(rlimit_counts_this_process),
		cmocka_unit_test(what_is_no_group_is_refused),
		cmocka_unit_test(groups_are_removed_by_who_made_them),
		cmocka_unit_test(ids_of_others_are_not_chosen),
		cmocka_unit_test(profile_is_looked_at),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
