/* SPDX-License-Identifier: Apache-2.0 */
#include "runner/charge.h"

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/fs.h"
#include "base/str.h"
#include "sandbox/protocol.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	PATH_BYTES_MAX = 1024,
	MOUNTS_BYTES_MAX = 1 << 20,
	SMALL_BYTES_MAX = 16384,
};

/* The ways in which kernels count, the first that is there being used: memory is of one hierarchy.
 */
static const struct way {
	const char *type;	/* of the mount */
	const char *controller; /* as mounts and /proc/PID/cgroup name it; "": all that have none */
	const char *file;
} ways[] = {
	{"cgroup", "memory", "memory.usage_in_bytes"},
	{"cgroup2", "", "memory.current"},
};

struct charge {
	char proc[PATH_BYTES_MAX];
	char root[PATH_BYTES_MAX];  /* the part of the hierarchy that is mounted */
	char point[PATH_BYTES_MAX]; /* where */
	const struct way *way;
};

static bool has_word(const char *list, const char *word)
{
	size_t len = strlen(word);

	for (const char *at = list; at; at = strchr(at, ',')) {
		at += *at == ',';
		if (strncmp(at, word, len) == 0 && (at[len] == ',' || at[len] == '\0'))
			return true;
	}
	return false;
}

/* One line of /proc/PID/mountinfo, see proc(5). */
static bool is_mount_of(const char *line, struct charge *c, const struct way *way)
{
	char root[PATH_BYTES_MAX], point[PATH_BYTES_MAX], type[32], options[256];
	const char *dash = strstr(line, " - ");

	if (!dash || sscanf(line, "%*s %*s %*s %1023s %1023s", root, point) != 2 ||
	    sscanf(dash, " - %31s %*s %255s", type, options) != 2 || !str_eq(type, way->type) ||
	    (way->controller[0] && !has_word(options, way->controller)))
		return false;
	c->way = way;
	(void)str_copy(c->root, sizeof(c->root), str_eq(root, "/") ? "" : root);
	return str_copy(c->point, sizeof(c->point), point);
}

static bool find_mount(struct charge *c, const char *text, const struct way *way)
{
	for (const char *line = text; line && *line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (is_mount_of(line, c, way))
			return true;
	}
	return false;
}

int charge_open(const char *proc, struct charge **ret_charge, struct err *e)
{
	struct charge *c = calloc(1, sizeof(*c));
	char path[PATH_BYTES_MAX];
	struct buf text;
	int r;

	if (!c || !str_copy(c->proc, sizeof(c->proc), proc)) {
		free(c);
		return err_set(e, -ENOMEM, "out of memory");
	}
	buf_init(&text, MOUNTS_BYTES_MAX);
	(void)snprintf(path, sizeof(path), "%s/self/mountinfo", proc);
	r = fs_read_file(AT_FDCWD, path, &text, e);
	for (size_t i = 0; r >= 0 && i < ARRAY_SIZE(ways) && !c->point[0]; i++)
		(void)find_mount(c, text.data ? text.data : "", &ways[i]);
	buf_fini(&text);
	if (r < 0 || !c->point[0]) {
		free(c);
		c = NULL;
	}
	if (r < 0)
		return r;
	*ret_charge = c;
	return 0;
}

void charge_close(struct charge *c)
{
	free(c);
}

/* The group of a process in the hierarchy that counts, from a line "5:memory:/a/b"; NULL where the
 * line is of another. */
static const char *group_in(const struct charge *c, const char *line)
{
	const char *list = strchr(line, ':'), *path = list ? strchr(list + 1, ':') : NULL;
	char names[256];
	size_t len;

	if (!path)
		return NULL;
	len = (size_t)(path - list - 1);
	if (len >= sizeof(names))
		return NULL;
	memcpy(names, list + 1, len);
	names[len] = '\0';
	if (c->way->controller[0] ? !has_word(names, c->way->controller) : names[0] != '\0')
		return NULL;
	return path + 1;
}

/* Path of the file to read, where the group is a box's: elsewhere it counts others too. */
static int file_of(const struct charge *c, char *text, char *path, size_t size)
{
	size_t root_len = strlen(c->root);

	for (char *line = text, *next; line && *line; line = next) {
		const char *group;

		next = strchr(line, '\n');
		if (next)
			*next++ = '\0';
		group = group_in(c, line);
		if (!group)
			continue;
		if (!strstr(group, "/" SANDBOX_GROUP_PREFIX))
			return -ENOENT;
		if (strncmp(group, c->root, root_len) == 0)
			group += root_len;
		return snprintf(path, size, "%s%s/%s", c->point, group, c->way->file) < (int)size
			       ? 0
			       : -ENOENT;
	}
	return -ENOENT;
}

static int read_small(const char *path, struct buf *text)
{
	buf_clear(text);
	return fs_read_file(AT_FDCWD, path, text, NULL) < 0 || text->len == 0 ? -ENOENT : 0;
}

int charge_read(const struct charge *c, uint32_t init_pid, uint64_t *ret_bytes)
{
	char path[2 * PATH_BYTES_MAX];
	struct buf text;
	int r;

	if (!c)
		return -ENOENT;
	buf_init(&text, SMALL_BYTES_MAX);
	(void)snprintf(path, sizeof(path), "%s/%u/cgroup", c->proc, init_pid);
	r = read_small(path, &text);
	if (r == 0)
		r = file_of(c, text.data, path, sizeof(path));
	if (r == 0)
		r = read_small(path, &text);
	if (r == 0) {
		text.data[strcspn(text.data, "\n")] = '\0';
		r = str_to_u64(text.data, 0, UINT64_MAX, ret_bytes) < 0 ? -ENOENT : 0;
	}
	buf_fini(&text);
	return r;
}
