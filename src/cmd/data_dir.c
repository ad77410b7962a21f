/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/data_dir.h"

#include "base/cleanup.h"
#include "base/fs.h"
#include "base/str.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/fsuid.h>
#include <sys/stat.h>
#include <unistd.h>

/* Everything that is the data folder's own goes to the user that will write it. Links are not
 * followed; folders below are not entered, since Kiln makes none. */
static int give_data_dir(const char *path, uid_t uid, gid_t gid, struct err *e)
{
	AUTO_FD int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	const struct dirent *entry;
	DIR *dir;
	int r = 0;

	if (fd < 0)
		return err_errno(e, -errno, "could not open the folder \"%s\"", path);
	if (fchown(fd, uid, gid) < 0)
		return err_errno(e, -errno, "could not give \"%s\" to user %u", path,
				 (unsigned)uid);
	dir = fdopendir(fd);
	if (!dir)
		return err_errno(e, -errno, "could not read the folder \"%s\"", path);
	(void)TAKE_FD(fd);
	while ((entry = readdir(dir))) {
		if (!str_has_prefix(entry->d_name, "kiln."))
			continue;
		if (fchownat(dirfd(dir), entry->d_name, uid, gid, AT_SYMLINK_NOFOLLOW) < 0)
			r = err_errno(e, -errno, "could not give \"%s/%s\" to user %u", path,
				      entry->d_name, (unsigned)uid);
	}
	(void)closedir(dir);
	return r;
}

/* Two servers on one data folder would both take its tasks for their own. The lock is held by the
 * keeper and all that it forks, and goes with the last of them. */
static int lock_data_dir(const char *path, int *ret_fd, struct err *e)
{
	char file[PATH_MAX];
	AUTO_FD int fd = -EBADF;

	if ((size_t)snprintf(file, sizeof file, "%s/kiln.lock", path) >= sizeof file)
		return err_set(e, -ENAMETOOLONG, "the path of the data folder is too long");
	fd = open(file, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return err_errno(e, -errno, "could not open \"%s\"", file);
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		if (errno == EWOULDBLOCK)
			return err_set(e, -EBUSY,
				       "another server uses the data folder \"%s\": stop it, or "
				       "give this one another with --data-dir",
				       path);
		return err_errno(e, -errno, "could not lock \"%s\"", file);
	}
	*ret_fd = TAKE_FD(fd);
	return 0;
}

/* A folder that belongs to the user is of no use below one that the user may not enter. */
static int check_reach(const char *path, uid_t uid, gid_t gid, struct err *e)
{
	int r = 0, fd;

	(void)setfsgid(gid);
	(void)setfsuid(uid);
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		r = err_set(
			e, -errno,
			"user %u, which the server becomes, cannot reach \"%s\": a folder above "
			"it is private; choose another with --data-dir",
			(unsigned)uid, path);
	else
		(void)close(fd);
	(void)setfsuid(0);
	(void)setfsgid(0);
	return r;
}

int data_dir_prepare(const char *path, uid_t uid, gid_t gid, int *ret_lock_fd, struct err *e)
{
	int r = fs_make_dirs(path, 0700, e);

	if (r < 0)
		return err_wrap(e, r, "the data folder");
	r = lock_data_dir(path, ret_lock_fd, e);
	if (r < 0 || geteuid() != 0)
		return r;
	r = give_data_dir(path, uid, gid, e);
	return r < 0 ? r : check_reach(path, uid, gid, e);
}
