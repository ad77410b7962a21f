/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/cgroup.h"

#include "base/cleanup.h"
#include "sandbox/io.h"

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
#define PREFIX	"kiln-sandbox."

static const char *const controllers[_TREE_MAX] = {
	[TREE_V2] = "", [TREE_MEMORY] = "memory", [TREE_PIDS] = "pids", [TREE_CPUACCT] = "cpuacct"};

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
static int find_place(const struct limiter_options *o, enum limiter_tree tree, struct place *p)
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
static uint64_t start_time(int proc_fd, uint64_t pid)
{
	char name[40], text[1024], *p;
	unsigned long long start = 0;

	(void)snprintf(name, sizeof(name), "%" PRIu64 "/stat", pid);
	if (io_read_at(proc_fd, name, text, sizeof(text)) < 0)
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
static bool has_ended(int proc_fd, uint64_t pid, uint64_t start)
{
	uint64_t now = start_time(proc_fd, pid);

	if (now)
		return now != start;
	return pid > INT32_MAX || (kill((pid_t)pid, 0) < 0 && errno == ESRCH);
}

static uint64_t pid_namespace(int proc_fd)
{
	struct stat st;

	return fstatat(proc_fd, "self/ns/pid", &st, 0) < 0 ? 0 : st.st_ino;
}

/* Removes the leaves of a group and the group. Only ever empty ones go: the kernel sees to that.
 * Whether it is gone. */
static bool remove_group(int parent, const char *name)
{
	int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);

	if (!d) {
		cleanup_close(&fd);
		return false;
	}
	for (struct dirent *ent; (ent = readdir(d));)
		if (ent->d_name[0] == 'b' && ent->d_type == DT_DIR)
			(void)unlinkat(dirfd(d), ent->d_name, AT_REMOVEDIR);
	(void)closedir(d);
	return unlinkat(parent, name, AT_REMOVEDIR) == 0;
}

/* Groups of spawners that are no more: killed ones cannot clean up after themselves. */
static void remove_stale(struct limiter *l, int parent)
{
	int fd = openat(parent, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	uint64_t ns = pid_namespace(l->proc_fd);

	if (!d) {
		cleanup_close(&fd);
		return;
	}
	for (struct dirent *ent; (ent = readdir(d));) {
		uint64_t their_ns, pid, start;

		if (strncmp(ent->d_name, PREFIX, strlen(PREFIX)) != 0 ||
		    sscanf(ent->d_name, PREFIX "%" SCNu64 ".%" SCNu64 ".%" SCNu64, &their_ns, &pid,
			   &start) != 3)
			continue;
		if (their_ns == ns && has_ended(l->proc_fd, pid, start))
			(void)remove_group(parent, ent->d_name);
	}
	(void)closedir(d);
}

static int make_own(struct limiter *l, enum limiter_tree tree)
{
	int fd;

	remove_stale(l, l->parent[tree]);
	if (mkdirat(l->parent[tree], l->name, 0755) < 0 && errno != EEXIST)
		return -errno;
	fd = openat(l->parent[tree], l->name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0) {
		fd = -errno;
		(void)unlinkat(l->parent[tree], l->name, AT_REMOVEDIR);
		return fd;
	}
	l->own[tree] = fd;
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
 * systemd delegated it or it is a container's root, else only ourselves and our parent. */
static int move_members(int dir, bool whole)
{
	char text[65536], line[32];
	const char *p = text;
	uint64_t pid;
	int r;

	if (mkdirat(dir, MEMBERS, 0755) < 0 && errno != EEXIST)
		return -errno;
	r = io_read_at(dir, "cgroup.procs", text, sizeof(text));
	for (; r >= 0 && io_parse_u64(p, &pid, &p) == 0; p += *p == '\n') {
		if (!whole && pid != (uint64_t)getpid() && pid != (uint64_t)getppid())
			continue;
		(void)snprintf(line, sizeof(line), "%" PRIu64, pid);
		r = io_write_at(dir, MEMBERS "/cgroup.procs", line, 0);
		if (r == -ESRCH)
			r = 0;
	}
	return r < 0 ? r : 0;
}

static int enable_controllers(struct limiter *l, int dir, bool whole)
{
	int r = io_write_at(dir, "cgroup.subtree_control", "+memory +pids", 0);

	if (r == -EBUSY) {
		r = move_members(dir, whole);
		if (r == 0)
			r = io_write_at(dir, "cgroup.subtree_control", "+memory +pids", 0);
	}
	if (r == 0 && io_write_at(dir, "cgroup.subtree_control", "+cpu", 0) == 0)
		l->has_cpu_rate = true;
	return r;
}

static bool is_delegated(const char *path)
{
	char value[4];

	return getxattr(path, "trusted.delegate", value, sizeof(value)) == 1 ||
	       getxattr(path, "user.delegate", value, sizeof(value)) == 1;
}

/* The parent of a version 2 tree with controllers: own group, or next to the members' leaf. */
static int open_v2_parent(struct limiter *l, const struct limiter_options *o, struct place *p)
{
	size_t len = strlen(p->path), tail = strlen("/" MEMBERS);
	bool whole;

	if (len > tail && strcmp(p->path + len - tail, "/" MEMBERS) == 0)
		p->path[len - tail] = 0;
	whole = strlen(p->path) <= p->mount_len || is_delegated(p->path) ||
		(o->parent && o->parent[0]);
	l->parent[TREE_V2] = open(p->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (l->parent[TREE_V2] < 0)
		return -errno;
	if (!has_controllers(l->parent[TREE_V2]))
		return -EOPNOTSUPP;
	return enable_controllers(l, l->parent[TREE_V2], whole);
}

static int try_cgroup2(struct limiter *l, const struct limiter_options *o)
{
	struct place p;
	int r = find_place(o, TREE_V2, &p);

	if (r < 0)
		return r;
	r = open_v2_parent(l, o, &p);
	if (r == 0)
		r = make_own(l, TREE_V2);
	if (r == 0)
		r = io_write_at(l->own[TREE_V2], "cgroup.subtree_control", "+memory +pids",
				l->creates_files ? O_CREAT : 0);
	if (r == 0 && l->has_cpu_rate &&
	    io_write_at(l->own[TREE_V2], "cgroup.subtree_control", "+cpu", 0) < 0)
		l->has_cpu_rate = false;
	if (r < 0)
		return r;
	(void)snprintf(l->path, sizeof(l->path), "%.*s", (int)sizeof(l->path) - 1,
		       p.path + p.mount_len);
	return 0;
}

static int open_tree_v1(struct limiter *l, const struct limiter_options *o, enum limiter_tree tree)
{
	struct place p;
	int r = find_place(o, tree, &p);

	if (r < 0)
		return r;
	l->parent[tree] = open(p.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (l->parent[tree] < 0)
		return -errno;
	r = make_own(l, tree);
	if (r == 0 && tree == TREE_MEMORY)
		(void)snprintf(l->path, sizeof(l->path), "%.*s", (int)sizeof(l->path) - 1,
			       p.path + p.mount_len);
	return r;
}

static int try_cgroup1(struct limiter *l, const struct limiter_options *o)
{
	int r = open_tree_v1(l, o, TREE_MEMORY);

	if (r == 0)
		r = open_tree_v1(l, o, TREE_PIDS);
	if (r < 0)
		return r;
	/* CPU time from the version 2 tree where it is mounted beside: cpu.stat is there without
	 * any controller, and it kills; else from cpuacct. */
	r = open_tree_v1(l, o, TREE_V2);
	return r == 0 || io_is_shortage(r) ? r : open_tree_v1(l, o, TREE_CPUACCT);
}

static int try_rlimit(struct limiter *l, const struct limiter_options *o)
{
	(void)l;
	(void)o;
	return 0;
}

static void close_trees(struct limiter *l)
{
	for (int i = 0; i < _TREE_MAX; i++) {
		for (int tries = 0; tries < 3 && l->own[i] >= 0; tries++)
			if (remove_group(l->parent[i], l->name))
				cleanup_close(&l->own[i]);
		cleanup_close(&l->own[i]);
		cleanup_close(&l->parent[i]);
	}
	l->has_cpu_rate = false;
	l->path[0] = 0;
}

static int look_for(const struct leaf *leaf, enum limiter_tree tree, const char *name, int mode,
		    bool *ret_has)
{
	if (leaf->dir[tree] < 0)
		return 0;
	if (faccessat(leaf->dir[tree], name, mode, 0) == 0)
		*ret_has = true;
	else if (io_is_shortage(-errno))
		return -errno;
	return 0;
}

/* What the chosen rung can tell is read off a leaf. */
static int look(struct limiter *l)
{
	const struct {
		enum limiter_tree tree;
		const char *name;
		int mode;
		bool *has;
	} files[] = {
		{TREE_V2, "memory.swap.max", W_OK, &l->has_swap},
		{TREE_MEMORY, "memory.memsw.limit_in_bytes", W_OK, &l->has_swap},
		{TREE_V2, "memory.peak", R_OK, &l->has_peak},
		{TREE_MEMORY, "memory.max_usage_in_bytes", R_OK, &l->has_peak},
		{TREE_V2, "cgroup.kill", W_OK, &l->has_kill},
	};
	struct leaf leaf;
	int r;

	leaf_init(&leaf, SANDBOX_BOXES_MAX);
	r = leaf_make(l, &leaf);
	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(files); i++)
		r = look_for(&leaf, files[i].tree, files[i].name, files[i].mode, files[i].has);
	leaf_fini(l, &leaf);
	return r;
}

int limiter_open(struct limiter *l, const struct limiter_options *o, struct err *e)
{
	static const struct {
		enum sandbox_rung rung;
		int (*try)(struct limiter *l, const struct limiter_options *o);
		const struct limiter_ops *ops;
	} rungs[] = {
		{SANDBOX_RUNG_CGROUP2, try_cgroup2, &cgroup2_ops},
		{SANDBOX_RUNG_CGROUP1, try_cgroup1, &cgroup1_ops},
		{SANDBOX_RUNG_RLIMIT, try_rlimit, &rlimit_ops},
	};
	int r = -EINVAL;

	*l = (struct limiter){.creates_files = o->creates_files,
			      .parent = {-EBADF, -EBADF, -EBADF, -EBADF},
			      .own = {-EBADF, -EBADF, -EBADF, -EBADF}};
	l->proc_fd = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (l->proc_fd < 0)
		return err_errno(e, -errno, "could not open \"/proc\"");
	(void)snprintf(l->name, sizeof(l->name), PREFIX "%" PRIu64 ".%d.%" PRIu64,
		       pid_namespace(l->proc_fd), getpid(),
		       start_time(l->proc_fd, (uint64_t)getpid()));
	for (size_t i = 0; i < ARRAY_SIZE(rungs); i++) {
		if (o->rung != SANDBOX_RUNG_AUTO && o->rung != rungs[i].rung)
			continue;
		l->rung = rungs[i].rung;
		l->ops = rungs[i].ops;
		r = rungs[i].try(l, o);
		if (r == 0)
			r = look(l);
		if (r == 0)
			return 0;
		close_trees(l);
		/* Says nothing about the rung: the next lower one would be a silent loss. */
		if (io_is_shortage(r))
			break;
	}
	cleanup_close(&l->proc_fd);
	return err_errno(e, r, "could not set up limits by %s", sandbox_rung_name(o->rung));
}

void limiter_close(struct limiter *l)
{
	close_trees(l);
	cleanup_close(&l->proc_fd);
}
