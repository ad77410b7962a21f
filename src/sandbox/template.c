/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/template.h"

#include "base/cleanup.h"
#include "sandbox/inside.h"
#include "sandbox/io.h"
#include "sandbox/syscalls.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *const devices[] = {"null", "zero", "full", "random", "urandom"};

static const struct {
	const char *target, *text;
} links[] = {
	{"dev/fd", "/proc/self/fd"},	   {"dev/stdin", "/proc/self/fd/0"},
	{"dev/stdout", "/proc/self/fd/1"}, {"dev/stderr", "/proc/self/fd/2"},
	{"etc/mtab", "/proc/self/mounts"},
};

static const struct {
	const char *target, *text;
} files[] = {
	{"etc/passwd", "root:x:0:0:root:/:/usr/sbin/nologin\n"
		       "box:x:1000:1000:box:/box:/bin/sh\n"
		       "nobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n"},
	{"etc/group", "root:x:0:\nbox:x:1000:\nnogroup:x:65534:\n"},
	{"etc/hosts", "127.0.0.1 localhost box\n::1 localhost\n"},
	{"etc/hostname", "box\n"},
	{"etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n"},
	{"etc/resolv.conf", ""},
};

static const char *const folders[] = {"box", "tmp", "proc", "dev", "dev/shm", "etc"};

/* What is taken from the host, opened while its tree is still there. */
struct part {
	const struct sandbox_bind *bind;
	int tree;
};

static int clone_tree(const char *path)
{
	int fd =
		open_tree(AT_FDCWD, path,
			  OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE | AT_SYMLINK_NOFOLLOW);

	return fd < 0 ? -errno : fd;
}

static int set_flags(int fd, const char *path, uint64_t flags)
{
	struct mount_attr attr = {.attr_set = flags};

	return mount_setattr(fd, path, AT_EMPTY_PATH | AT_RECURSIVE, &attr, sizeof(attr)) < 0
		       ? -errno
		       : 0;
}

static int take_part(const struct sandbox_bind *bind, struct part *part, struct err *e)
{
	*part = (struct part){.bind = bind, .tree = -EBADF};
	if (!memchr(bind->source, 0, SANDBOX_PATH_MAX) ||
	    !memchr(bind->target, 0, SANDBOX_PATH_MAX))
		return err_set(e, -EINVAL, "the profile is malformed");
	if (bind->flags & SANDBOX_BIND_SYMLINK)
		return 0;
	part->tree = clone_tree(bind->source);
	return part->tree < 0 ? err_errno(e, part->tree, "could not clone the tree of \"%s\"",
					  bind->source)
			      : 0;
}

/* Makes the folders that a relative path goes through. */
static int make_parents(const char *path)
{
	char part[SANDBOX_PATH_MAX];

	for (const char *slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/')) {
		(void)snprintf(part, sizeof(part), "%.*s", (int)(slash - path), path);
		if (mkdir(part, 0755) < 0 && errno != EEXIST)
			return -errno;
	}
	return 0;
}

static int place_tree(int tree, const char *target, bool folder, uint64_t flags)
{
	int r = folder ? mkdir(target, 0755) : mknod(target, S_IFREG | 0644, 0);

	if (r < 0 && errno != EEXIST)
		return -errno;
	r = set_flags(tree, "", flags);
	if (r < 0)
		return r;
	return move_mount(tree, "", AT_FDCWD, target, MOVE_MOUNT_F_EMPTY_PATH) < 0 ? -errno : 0;
}

static int place_part(const struct part *part)
{
	const char *target = part->bind->target;
	int r;

	while (*target == '/')
		target++;
	if (strstr(target, "..") || *target == 0)
		return -EINVAL;
	r = make_parents(target);
	if (r < 0)
		return r;
	if (part->bind->flags & SANDBOX_BIND_SYMLINK) {
		/* Ours is there already: /etc/mtab and the like. */
		return symlink(part->bind->source, target) < 0 && errno != EEXIST ? -errno : 0;
	}
	return place_tree(part->tree, target, part->bind->flags & SANDBOX_BIND_FOLDER,
			  MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);
}

static int place_own(const int *device_trees, struct err *e)
{
	char name[32];
	int r;

	for (size_t i = 0; i < ARRAY_SIZE(folders); i++)
		if (mkdir(folders[i], 0755) < 0)
			return err_errno(e, -errno, "could not make \"/%s\"", folders[i]);
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		r = io_write_at(AT_FDCWD, files[i].target, files[i].text, O_CREAT);
		if (r < 0)
			return err_errno(e, r, "could not write \"/%s\"", files[i].target);
	}
	for (size_t i = 0; i < ARRAY_SIZE(links); i++)
		if (symlink(links[i].text, links[i].target) < 0)
			return err_errno(e, -errno, "could not make \"/%s\"", links[i].target);
	for (size_t i = 0; i < ARRAY_SIZE(devices); i++) {
		(void)snprintf(name, sizeof(name), "dev/%s", devices[i]);
		r = place_tree(device_trees[i], name, false,
			       MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC);
		if (r < 0)
			return err_errno(e, r, "could not make \"/%s\"", name);
	}
	return 0;
}

static int open_devices(int *trees, struct err *e)
{
	char name[32];

	for (size_t i = 0; i < ARRAY_SIZE(devices); i++) {
		(void)snprintf(name, sizeof(name), "/dev/%s", devices[i]);
		trees[i] = clone_tree(name);
		if (trees[i] < 0)
			return err_errno(e, trees[i], "could not open \"%s\"", name);
	}
	return 0;
}

/* A /proc of a pid namespace without a process: it shows nobody, but a kernel lets a box mount its
 * own /proc only where there is a whole one to be seen (mount_namespaces(7)). Negative errno where
 * the host does not let us either. */
static int open_dead_proc(void)
{
	/* The child shares our descriptors: what it leaves open is ours. */
	struct clone_args args = {.flags = CLONE_NEWPID | CLONE_FILES, .exit_signal = SIGCHLD};
	int tree = fcntl(0, F_DUPFD_CLOEXEC, 3), status = 0;
	pid_t pid = tree < 0 ? -1 : sys_clone3(&args);

	if (pid == 0) {
		int context = fsopen("proc", FSOPEN_CLOEXEC), made = -EBADF;

		if (fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) == 0)
			made = fsmount(context, FSMOUNT_CLOEXEC,
				       MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
		if (made < 0 || dup3(made, tree, O_CLOEXEC) < 0)
			status = errno;
		cleanup_close(&context);
		cleanup_close(&made);
		_exit(status);
	}
	if (pid < 0 || waitpid(pid, &status, 0) < 0)
		status = errno;
	else
		status = WIFEXITED(status) ? WEXITSTATUS(status) : EAGAIN;
	if (status == 0)
		return tree;
	cleanup_close(&tree);
	return -status;
}

static int place_parts(const struct part *parts, size_t count, int proc, const int *device_trees,
		       struct err *e)
{
	int r = place_own(device_trees, e);

	for (size_t i = 0; r >= 0 && i < count; i++) {
		r = place_part(&parts[i]);
		if (r < 0)
			return err_errno(e, r, "could not bind \"%s\"", parts[i].bind->target);
	}
	if (r >= 0 && proc >= 0 &&
	    move_mount(proc, "", AT_FDCWD, "proc", MOVE_MOUNT_F_EMPTY_PATH) < 0)
		return err_errno(e, -errno, "could not place \"/proc\"");
	return r;
}

/* A tmpfs over some folder that every host has, filled, and made the root of this namespace. */
static int enter_new_root(const struct part *parts, size_t count, int proc, const int *device_trees,
			  struct err *e)
{
	static const char *const covers[] = {"/tmp", "/mnt", "/var", "/usr"};
	struct mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NODEV};
	size_t i = 0;
	int r;

	while (i < ARRAY_SIZE(covers) &&
	       mount("tmpfs", covers[i], "tmpfs", MS_NOSUID, "size=1m,mode=0755") < 0)
		i++;
	if (i == ARRAY_SIZE(covers) || chdir(covers[i]) < 0)
		return err_errno(e, -errno, "could not mount a tmpfs");
	r = place_parts(parts, count, proc, device_trees, e);
	if (r < 0)
		return r;
	if (sys_pivot_root(".", ".") < 0 || umount2(".", MNT_DETACH) < 0 || chdir("/") < 0)
		return err_errno(e, -errno, "could not leave the host's root");
	if (mount_setattr(AT_FDCWD, "/", 0, &attr, sizeof(attr)) < 0)
		return err_errno(e, -errno, "could not make the root read-only");
	return 0;
}

int template_enter(const struct sandbox_bind *binds, size_t count, struct err *e)
{
	AUTO_FREE struct part *parts = calloc(count + 1, sizeof(*parts));
	int device_trees[ARRAY_SIZE(devices)], proc, r;

	if (!parts)
		return err_set(e, -ENOMEM, "could not allocate the profile");
	(void)umask(022);
	if (unshare(CLONE_NEWNS) < 0)
		return err_errno(e, -errno, "could not make a mount namespace");
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return err_errno(e, -errno, "could not make mounts private");
	r = open_devices(device_trees, e);
	for (size_t i = 0; r >= 0 && i < count; i++)
		r = take_part(&binds[i], &parts[i], e);
	if (r < 0)
		return r;
	proc = open_dead_proc();
	if (io_is_shortage(proc))
		return err_errno(e, proc, "could not make an empty \"/proc\"");
	r = enter_new_root(parts, count, proc, device_trees, e);
	/* Descriptors of trees that were placed pin nothing: the namespace lives as long as we. */
	for (size_t i = 0; i < ARRAY_SIZE(devices); i++)
		cleanup_close(&device_trees[i]);
	for (size_t i = 0; i < count; i++)
		cleanup_close(&parts[i].tree);
	cleanup_close(&proc);
	return r;
}
