/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/host.h"

#include "base/cleanup.h"
#include "sandbox/client.h"
#include "sandbox/io.h"
#include "sandbox/nursery.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

/* The leaf of a delegated group that its own members move to: version 2 allows controllers only
 * below a group without processes. */
#define MEMBERS "kiln-main"
/* Sorts of it with those of boxes, so that it goes with them where it was left. */
#define PROBE "b-probe"

static const char *const controllers[_SANDBOX_TREE_MAX] = {[SANDBOX_TREE_V2] = "",
							   [SANDBOX_TREE_MEMORY] = "memory",
							   [SANDBOX_TREE_PIDS] = "pids",
							   [SANDBOX_TREE_CPUACCT] = "cpuacct"};

/* Whether a comma-separated list has the word. */
static bool list_has(const char *list, const char *word)
{
	size_t len = strlen(word);

	for (const char *p = list; p; p = strchr(p, ',')) {
		p += *p == ',';
		if (strncmp(p, word, len) == 0 && (p[len] == ',' || p[len] == 0))
			return true;
	}
	return false;
}

/* Path of this process in a hierarchy, from the text of /proc/self/cgroup ("5:memory:/a/b"). */
static int own_path(char *text, const char *controller, char *path, size_t size)
{
	char *save = NULL;

	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		char *list = strchr(line, ':'), *where = list ? strchr(list + 1, ':') : NULL;

		if (!where)
			continue;
		*where = 0;
		if (controller[0] ? list_has(list + 1, controller) : list[1] == 0)
			return snprintf(path, size, "%s", where + 1) < (int)size ? 0
										 : -ENAMETOOLONG;
	}
	return -ENOENT;
}

/* Mount point of a hierarchy and the part of it that is mounted ("root" in proc(5)). */
static int mount_of(char *text, const char *controller, char *root, char *point, size_t size)
{
	char *save = NULL;

	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		char *dash = strstr(line, " - "), *f[5] = {line}, type[16], options[256];

		if (!dash || sscanf(dash, " - %15s %*s %255s", type, options) != 2)
			continue;
		for (int i = 1; i < 5 && f[i - 1]; i++) {
			f[i] = strchr(f[i - 1], ' ');
			if (f[i])
				*f[i]++ = 0;
		}
		if (!f[4] ||
		    (controller[0] ? strcmp(type, "cgroup") != 0 || !list_has(options, controller)
				   : strcmp(type, "cgroup2") != 0))
			continue;
		f[4][strcspn(f[4], " ")] = 0;
		if (strlen(f[3]) >= size || strlen(f[4]) >= size)
			return -ENAMETOOLONG;
		(void)snprintf(root, size, "%s", f[3]);
		(void)snprintf(point, size, "%s", f[4]);
		return 0;
	}
	return -ENOENT;
}

struct place {
	char path[1024];  /* absolute, of the group to nest under */
	size_t mount_len; /* of the mount point in it */
};

/* Finds the group to nest under in one hierarchy. */
static int find_place(const struct groups_options *o, enum sandbox_tree tree, struct place *p)
{
	char text[32768], root[256], point[256], own[512];
	const char *below = own;
	int r = io_read_at(AT_FDCWD, o->mountinfo ? o->mountinfo : "/proc/self/mountinfo", text,
			   sizeof(text));

	if (r >= 0)
		r = mount_of(text, controllers[tree], root, point, sizeof(root));
	if (r < 0)
		return r;
	if (o->parent && o->parent[0]) {
		if (snprintf(own, sizeof(own), "%s", o->parent) >= (int)sizeof(own) ||
		    strstr(own, ".."))
			return -EINVAL;
	} else {
		r = io_read_at(AT_FDCWD, o->own_cgroups ? o->own_cgroups : "/proc/self/cgroup",
			       text, sizeof(text));
		if (r >= 0)
			r = own_path(text, controllers[tree], own, sizeof(own));
		if (r < 0)
			return r;
		/* Inside a container without its own view only the part below is mounted. */
		if (root[1] && strncmp(own, root, strlen(root)) == 0)
			below = own + strlen(root);
	}
	while (*below == '/')
		below++;
	r = snprintf(p->path, sizeof(p->path), "%s%s%s%s", o->mount_prefix ? o->mount_prefix : "",
		     point, below[0] ? "/" : "", below);
	if (r >= (int)sizeof(p->path))
		return -ENAMETOOLONG;
	p->mount_len = (size_t)r - strlen(below) - (below[0] ? 1 : 0);
	return 0;
}

/* 0 where it cannot be told. */
static uint64_t start_time(uint64_t pid)
{
	char name[40], text[1024], *p;
	unsigned long long start = 0;

	(void)snprintf(name, sizeof(name), "/proc/%" PRIu64 "/stat", pid);
	if (io_read_at(AT_FDCWD, name, text, sizeof(text)) < 0)
		return 0;
	p = strrchr(text, ')'); /* the name in it may hold anything */
	if (!p || sscanf(p + 1,
			 " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d"
			 " %*d %*d %llu",
			 &start) != 1)
		return 0;
	return start;
}

/* Only what is known for sure: that nothing could be read says little, for want of descriptors, or
 * where /proc hides the processes of others. */
static bool has_ended(uint64_t pid, uint64_t start)
{
	uint64_t now = start_time(pid);

	if (now && start) /* it was not known either when the name was made, for the same reasons */
		return now != start;
	return pid > INT32_MAX || (kill((pid_t)pid, 0) < 0 && errno == ESRCH);
}

static uint64_t pid_namespace(void)
{
	struct stat st;

	return stat("/proc/self/ns/pid", &st) < 0 ? 0 : st.st_ino;
}

/* Removes the leaves of a group, those of a nursery below two more, and the group. Only ever empty
 * ones go: the kernel sees to that. Whether it is gone. */
static bool remove_group(int parent, const char *name) // NOLINT(misc-no-recursion): four deep
{
	int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);

	if (!d) {
		cleanup_close(&fd);
		return false;
	}
	for (struct dirent *ent; (ent = readdir(d));)
		if ((ent->d_name[0] == 'b' || strncmp(ent->d_name, SANDBOX_GROUP_PREFIX,
						      strlen(SANDBOX_GROUP_PREFIX)) == 0) &&
		    ent->d_type == DT_DIR && unlinkat(dirfd(d), ent->d_name, AT_REMOVEDIR) < 0)
			(void)remove_group(dirfd(d), ent->d_name);
	(void)closedir(d);
	return unlinkat(parent, name, AT_REMOVEDIR) == 0;
}

/* Groups of spawners that are no more: killed ones cannot clean up after themselves. */
static void remove_stale(int parent)
{
	int fd = openat(parent, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	uint64_t ns = pid_namespace();

	if (!d) {
		cleanup_close(&fd);
		return;
	}
	for (struct dirent *ent; (ent = readdir(d));) {
		uint64_t their_ns, pid, start;

		if (strncmp(ent->d_name, SANDBOX_GROUP_PREFIX, strlen(SANDBOX_GROUP_PREFIX)) != 0 ||
		    sscanf(ent->d_name, SANDBOX_GROUP_PREFIX "%" SCNu64 ".%" SCNu64 ".%" SCNu64,
			   &their_ns, &pid, &start) != 3)
			continue;
		if (their_ns == ns && has_ended(pid, start))
			(void)remove_group(parent, ent->d_name);
	}
	(void)closedir(d);
}

static int make_own(struct groups *g, enum sandbox_tree tree)
{
	int fd;

	remove_stale(g->parent[tree]);
	if (mkdirat(g->parent[tree], g->name, 0755) < 0 && errno != EEXIST)
		return -errno;
	fd = openat(g->parent[tree], g->name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0) {
		fd = -errno;
		(void)unlinkat(g->parent[tree], g->name, AT_REMOVEDIR);
		return fd;
	}
	g->own[tree] = fd;
	return 0;
}

static bool has_controllers(int dir)
{
	char text[512];

	if (io_read_at(dir, "cgroup.controllers", text, sizeof(text)) < 0)
		return false;
	for (char *p = text; *p; p++)
		if (*p == ' ' || *p == '\n')
			*p = ',';
	return list_has(text, "memory") && list_has(text, "pids");
}

/* Empties a group that is ours to rule, so that it may hand controllers down: all of it where
 * systemd delegated it or it is a container's root, else only ourselves and the spawner. */
static int move_members(int dir, bool whole, pid_t spawner)
{
	char text[65536], line[32];
	const char *p = text;
	uint64_t pid;
	int r;

	if (mkdirat(dir, MEMBERS, 0755) < 0 && errno != EEXIST)
		return -errno;
	r = io_read_at(dir, "cgroup.procs", text, sizeof(text));
	for (; r >= 0 && io_parse_u64(p, &pid, &p) == 0; p += *p == '\n') {
		if (!whole && pid != (uint64_t)getpid() && pid != (uint64_t)spawner)
			continue;
		(void)snprintf(line, sizeof(line), "%" PRIu64, pid);
		r = io_write_at(dir, MEMBERS "/cgroup.procs", line, 0);
		if (r == -ESRCH)
			r = 0;
	}
	return r < 0 ? r : 0;
}

static int enable_controllers(struct groups *g, int dir, bool whole, pid_t spawner)
{
	int r = io_write_at(dir, "cgroup.subtree_control", "+memory +pids", 0);

	if (r == -EBUSY) {
		r = move_members(dir, whole, spawner);
		if (r == 0)
			r = io_write_at(dir, "cgroup.subtree_control", "+memory +pids", 0);
	}
	if (r == 0 && io_write_at(dir, "cgroup.subtree_control", "+cpu", 0) == 0)
		g->has |= SANDBOX_HAS_CPU_RATE;
	return r;
}

static bool is_delegated(const char *path)
{
	char value[4];

	return getxattr(path, "trusted.delegate", value, sizeof(value)) == 1 ||
	       getxattr(path, "user.delegate", value, sizeof(value)) == 1;
}

/* The parent of a version 2 tree with controllers: own group, or next to the members' leaf. */
static int open_v2_parent(struct groups *g, const struct groups_options *o, struct place *p)
{
	size_t len = strlen(p->path), tail = strlen("/" MEMBERS);
	bool whole;

	if (len > tail && strcmp(p->path + len - tail, "/" MEMBERS) == 0)
		p->path[len - tail] = 0;
	whole = strlen(p->path) <= p->mount_len || is_delegated(p->path) ||
		(o->parent && o->parent[0]);
	g->parent[SANDBOX_TREE_V2] = open(p->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (g->parent[SANDBOX_TREE_V2] < 0)
		return -errno;
	if (!has_controllers(g->parent[SANDBOX_TREE_V2]))
		return -EOPNOTSUPP;
	return enable_controllers(g, g->parent[SANDBOX_TREE_V2], whole, o->spawner);
}

static int try_cgroup2(struct groups *g, const struct groups_options *o)
{
	struct place p;
	int r = find_place(o, SANDBOX_TREE_V2, &p);

	if (r < 0)
		return r;
	r = open_v2_parent(g, o, &p);
	if (r == 0)
		r = make_own(g, SANDBOX_TREE_V2);
	if (r == 0)
		r = io_write_at(g->own[SANDBOX_TREE_V2], "cgroup.subtree_control", "+memory +pids",
				o->creates_files ? O_CREAT : 0);
	if (r == 0 && g->has & SANDBOX_HAS_CPU_RATE &&
	    io_write_at(g->own[SANDBOX_TREE_V2], "cgroup.subtree_control", "+cpu", 0) < 0)
		g->has &= ~(uint32_t)SANDBOX_HAS_CPU_RATE;
	if (r < 0)
		return r;
	(void)snprintf(g->path, sizeof(g->path), "%.*s", (int)sizeof(g->path) - 1,
		       p.path + p.mount_len);
	return 0;
}

static int open_tree_v1(struct groups *g, const struct groups_options *o, enum sandbox_tree tree)
{
	struct place p;
	int r = find_place(o, tree, &p);

	if (r < 0)
		return r;
	g->parent[tree] = open(p.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (g->parent[tree] < 0)
		return -errno;
	r = make_own(g, tree);
	if (r == 0 && tree == SANDBOX_TREE_MEMORY)
		(void)snprintf(g->path, sizeof(g->path), "%.*s", (int)sizeof(g->path) - 1,
			       p.path + p.mount_len);
	return r;
}

static int try_cgroup1(struct groups *g, const struct groups_options *o)
{
	int r = open_tree_v1(g, o, SANDBOX_TREE_MEMORY);

	if (r == 0)
		r = open_tree_v1(g, o, SANDBOX_TREE_PIDS);
	if (r < 0)
		return r;
	/* CPU time from the version 2 tree where it is mounted beside: cpu.stat is there without
	 * any controller, and it kills; else from cpuacct. */
	r = open_tree_v1(g, o, SANDBOX_TREE_V2);
	return r == 0 || io_is_shortage(r) ? r : open_tree_v1(g, o, SANDBOX_TREE_CPUACCT);
}

static int try_rlimit(struct groups *g, const struct groups_options *o)
{
	(void)g;
	(void)o;
	return 0;
}

static void remove_trees(struct groups *g)
{
	for (int i = 0; i < _SANDBOX_TREE_MAX; i++) {
		for (int tries = 0; tries < 3 && g->own[i] >= 0; tries++)
			if (remove_group(g->parent[i], g->name))
				cleanup_close(&g->own[i]);
		cleanup_close(&g->own[i]);
		cleanup_close(&g->parent[i]);
	}
	g->has = 0;
	g->path[0] = 0;
}

static int look_for(int dir, const char *name, int mode, uint32_t flag, uint32_t *has)
{
	if (faccessat(dir, name, mode, 0) == 0)
		*has |= flag;
	else if (io_is_shortage(-errno))
		return -errno;
	return 0;
}

/* What the chosen rung can tell is read off a group like those of boxes. */
static int look(struct groups *g)
{
	static const struct {
		enum sandbox_tree tree;
		const char *name;
		int mode;
		uint32_t flag;
	} files[] = {
		{SANDBOX_TREE_V2, "memory.swap.max", W_OK, SANDBOX_HAS_SWAP_LIMIT},
		{SANDBOX_TREE_MEMORY, "memory.memsw.limit_in_bytes", W_OK, SANDBOX_HAS_SWAP_LIMIT},
		{SANDBOX_TREE_V2, "memory.peak", R_OK, SANDBOX_HAS_MEMORY_PEAK},
		{SANDBOX_TREE_MEMORY, "memory.max_usage_in_bytes", R_OK, SANDBOX_HAS_MEMORY_PEAK},
		{SANDBOX_TREE_V2, "cgroup.kill", W_OK, SANDBOX_HAS_CGROUP_KILL},
	};
	int r = 0;

	for (int i = 0; r == 0 && i < _SANDBOX_TREE_MAX; i++) {
		AUTO_FD int dir = -EBADF;

		if (g->own[i] < 0)
			continue;
		if (mkdirat(g->own[i], PROBE, 0755) < 0)
			return -errno;
		dir = openat(g->own[i], PROBE, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		r = dir < 0 ? -errno : 0;
		for (size_t k = 0; r == 0 && k < ARRAY_SIZE(files); k++)
			if ((int)files[k].tree == i)
				r = look_for(dir, files[k].name, files[k].mode, files[k].flag,
					     &g->has);
		(void)unlinkat(g->own[i], PROBE, AT_REMOVEDIR);
	}
	return r;
}

int groups_open(struct groups *g, const struct groups_options *o, struct err *e)
{
	static const struct {
		enum sandbox_rung rung;
		int (*try)(struct groups *g, const struct groups_options *o);
	} rungs[] = {
		{SANDBOX_RUNG_CGROUP2, try_cgroup2},
		{SANDBOX_RUNG_CGROUP1, try_cgroup1},
		{SANDBOX_RUNG_RLIMIT, try_rlimit},
	};
	int r = -EINVAL;

	*g = (struct groups){0};
	for (int i = 0; i < _SANDBOX_TREE_MAX; i++)
		g->parent[i] = g->own[i] = -EBADF;
	(void)snprintf(g->name, sizeof(g->name), SANDBOX_GROUP_PREFIX "%" PRIu64 ".%d.%" PRIu64,
		       pid_namespace(), o->spawner, start_time((uint64_t)o->spawner));
	for (size_t i = 0; i < ARRAY_SIZE(rungs); i++) {
		if (o->rung != SANDBOX_RUNG_AUTO && o->rung != rungs[i].rung)
			continue;
		g->rung = rungs[i].rung;
		r = rungs[i].try(g, o);
		if (r == 0)
			r = look(g);
		if (r == 0)
			return 0;
		remove_trees(g);
		/* Says nothing about the rung: the next lower one would be a silent loss. */
		if (io_is_shortage(r))
			break;
	}
	return err_errno(e, r, "could not set up limits by %s", sandbox_rung_name(o->rung));
}

/* ---- below those of a spawner ---- */

/* Names of boxes that a spawner with a nursery does not have, so that it removes them at its end.
 */
#define KEEPER_GROUP  "b30"
#define NURSERY_GROUP "b31"

static int make_group(int parent, const char *name, uint32_t uid)
{
	int fd;

	if (mkdirat(parent, name, 0755) < 0 && errno != EEXIST)
		return -errno;
	fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd >= 0 && uid && fchown(fd, uid, uid) < 0) {
		(void)close(fd);
		fd = -1;
	}
	return fd < 0 ? -errno : fd;
}

/* Who moves a process between two groups of version 2 needs the right to what is above both. */
static int move_keeper(int own, pid_t keeper, uint32_t uid)
{
	AUTO_FD int group = make_group(own, KEEPER_GROUP, 0);
	char line[16];
	int r;

	if (group < 0)
		return group;
	(void)snprintf(line, sizeof(line), "%d", keeper);
	r = io_write_at(group, "cgroup.procs", line, 0);
	if (r >= 0 && uid && fchownat(own, "cgroup.procs", uid, uid, 0) < 0)
		r = -errno;
	return r < 0 ? r : 0;
}

static int hand_down(const struct groups *g, int dir)
{
	int r = g->rung == SANDBOX_RUNG_CGROUP2
			? io_write_at(dir, "cgroup.subtree_control", "+memory +pids", 0)
			: 0;

	if (r >= 0 && g->has & SANDBOX_HAS_CPU_RATE)
		r = io_write_at(dir, "cgroup.subtree_control", "+cpu", 0);
	return r < 0 ? r : 0;
}

static int nest_tree(const struct groups *g, int tree, uint32_t uid, unsigned int places,
		     int *ret_top, struct groups *ret_places)
{
	int r = 0;

	*ret_top = make_group(g->own[tree], NURSERY_GROUP, uid);
	if (*ret_top < 0)
		return *ret_top;
	if (tree == SANDBOX_TREE_V2)
		r = hand_down(g, *ret_top);
	for (unsigned int i = 0; r == 0 && i < places; i++) {
		struct groups *place = &ret_places[i];

		place->own[tree] = make_group(*ret_top, place->name, uid);
		if (place->own[tree] < 0)
			return place->own[tree];
		/* Not the one above: who serves there would remove its place at its end. */
		place->parent[tree] = fcntl(place->own[tree], F_DUPFD_CLOEXEC, 0);
		if (place->parent[tree] < 0)
			return -errno;
		if (tree == SANDBOX_TREE_V2)
			r = hand_down(g, place->own[tree]);
	}
	return r;
}

int groups_nest(const struct groups *g, pid_t keeper, uint32_t uid, unsigned int places,
		int ret_top[_SANDBOX_TREE_MAX], struct groups *ret_places, struct err *e)
{
	int r = g->own[SANDBOX_TREE_V2] >= 0 ? move_keeper(g->own[SANDBOX_TREE_V2], keeper, uid)
					     : 0;

	for (unsigned int i = 0; i < places; i++) {
		ret_places[i] = *g;
		nursery_place_name(i, ret_places[i].name);
		for (int tree = 0; tree < _SANDBOX_TREE_MAX; tree++)
			ret_places[i].parent[tree] = ret_places[i].own[tree] = -EBADF;
	}
	for (int tree = 0; tree < _SANDBOX_TREE_MAX; tree++) {
		ret_top[tree] = -EBADF;
		if (r == 0 && g->own[tree] >= 0)
			r = nest_tree(g, tree, uid, places, &ret_top[tree], ret_places);
	}
	return r < 0 ? err_errno(e, r, "could not make the groups of interpreters") : 0;
}

void groups_close(struct groups *g)
{
	for (int i = 0; i < _SANDBOX_TREE_MAX; i++) {
		cleanup_close(&g->own[i]);
		cleanup_close(&g->parent[i]);
	}
}

void groups_remove(struct groups *g)
{
	remove_trees(g);
}
