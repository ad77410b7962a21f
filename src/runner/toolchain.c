/* SPDX-License-Identifier: Apache-2.0 */
#include "runner/toolchain.h"

#include <errno.h>
#include <glob.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Of one file; all zero where there is none. An upgrade that keeps size and time of the contents,
 * as packages do that are built reproducibly, still makes a new inode or changes the old one. */
struct facts {
	uint64_t device, inode, size, changed_s, changed_ns, inode_changed_s, inode_changed_ns;
};

struct file {
	char *path;
	bool required; /* the compiler; of the others it is enough to know that they are not there
			*/
	struct facts facts;
};

struct toolchain {
	const struct language *language;
	void *said;
	size_t said_len;
	struct file *files;
	size_t n_files;
	bool known;
	uint8_t identity[DIGEST_SIZE];
};

static void forget_files(struct toolchain *t)
{
	for (size_t i = 0; i < t->n_files; i++)
		free(t->files[i].path);
	free(t->files);
	t->files = NULL;
	t->n_files = 0;
	t->known = false;
}

struct toolchain *toolchain_new(const struct language *l, const void *said, size_t said_len)
{
	struct toolchain *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->language = l;
	t->said_len = said_len;
	t->said = malloc(said_len + 1);
	if (!t->said) {
		free(t);
		return NULL;
	}
	if (said_len > 0)
		memcpy(t->said, said, said_len);
	return t;
}

void toolchain_free(struct toolchain *t)
{
	if (!t)
		return;
	forget_files(t);
	free(t->said);
	free(t);
}

static int look_at(const struct file *f, struct facts *ret_facts, struct err *e)
{
	struct stat st;

	*ret_facts = (struct facts){0};
	if (stat(f->path, &st) < 0) {
		if (errno == ENOENT && !f->required)
			return 0;
		return err_errno(e, -errno, "could not look at \"%s\"", f->path);
	}
	*ret_facts = (struct facts){
		.device = (uint64_t)st.st_dev,
		.inode = (uint64_t)st.st_ino,
		.size = (uint64_t)st.st_size,
		.changed_s = (uint64_t)st.st_mtim.tv_sec,
		.changed_ns = (uint64_t)st.st_mtim.tv_nsec,
		.inode_changed_s = (uint64_t)st.st_ctim.tv_sec,
		.inode_changed_ns = (uint64_t)st.st_ctim.tv_nsec,
	};
	return 0;
}

/* 0 where every file is as it was, 1 where one is not. */
static int has_changed(const struct toolchain *t, struct err *e)
{
	for (size_t i = 0; i < t->n_files; i++) {
		struct facts now;
		int r = look_at(&t->files[i], &now, e);

		if (r < 0)
			return r;
		if (memcmp(&now, &t->files[i].facts, sizeof(now)) != 0)
			return 1;
	}
	return 0;
}

static int add_file(struct toolchain *t, const char *path, bool required, struct err *e)
{
	struct file *f = &t->files[t->n_files];

	if (t->n_files == TOOLCHAIN_FILES_MAX)
		return err_set(e, -E2BIG, "more than %d files make the toolchain",
			       TOOLCHAIN_FILES_MAX);
	f->path = strdup(path);
	f->required = required;
	if (!f->path)
		return err_set(e, -ENOMEM, "out of memory");
	t->n_files++;
	return look_at(f, &f->facts, e);
}

static int refuse_folder(const char *path, int error)
{
	(void)path;
	/* A pattern may lead through what is no folder, or is not there. */
	return error != ENOENT && error != ENOTDIR;
}

/* The files of one pattern, in the order of their names. */
static int add_pattern(struct toolchain *t, const char *pattern, struct err *e)
{
	glob_t found = {0};
	int r = 0;

	if (!strpbrk(pattern, "*?["))
		return add_file(t, pattern, false, e);
	switch (glob(pattern, GLOB_ERR, refuse_folder, &found)) {
	case 0:
		for (size_t i = 0; r == 0 && i < found.gl_pathc; i++)
			r = add_file(t, found.gl_pathv[i], false, e);
		break;
	case GLOB_NOMATCH:
		break;
	case GLOB_NOSPACE:
		r = err_set(e, -ENOMEM, "out of memory");
		break;
	default:
		r = err_set(e, -EACCES, "could not look for \"%s\"", pattern);
	}
	globfree(&found);
	return r;
}

static int find_files(struct toolchain *t, struct err *e)
{
	const struct language_step *step =
		t->language->compile.argv ? &t->language->compile : &t->language->run;
	int r = 0;

	forget_files(t);
	t->files = calloc(TOOLCHAIN_FILES_MAX, sizeof(*t->files));
	if (!t->files)
		return err_set(e, -ENOMEM, "out of memory");
	/* What is started as ./FILE is one of the program's own files, which are in the key. */
	if (step->argv[0][0] == '/')
		r = add_file(t, step->argv[0], true, e);
	for (size_t i = 0; r == 0 && step->toolchain && step->toolchain[i]; i++)
		r = add_pattern(t, step->toolchain[i], e);
	return r;
}

static int digest_all(struct toolchain *t, struct err *e)
{
	struct digest *d = digest_new();
	int r = d ? digest_add_field(d, t->said, t->said_len) : -ENOMEM;

	for (size_t i = 0; r == 0 && i < t->n_files; i++) {
		const struct file *f = &t->files[i];

		r = digest_add_field(d, f->path, strlen(f->path));
		if (r == 0)
			r = digest_add_field(d, &f->facts, sizeof(f->facts));
	}
	if (r < 0)
		digest_free(d);
	else
		r = digest_finish(d, t->identity);
	return r < 0 ? err_set(e, r, "could not make a digest") : 0;
}

int toolchain_identity(struct toolchain *t, uint8_t ret_identity[static DIGEST_SIZE], struct err *e)
{
	int r = t->known ? has_changed(t, NULL) : 1;

	if (r != 0) {
		r = find_files(t, e);
		if (r == 0)
			r = digest_all(t, e);
		if (r < 0) {
			forget_files(t);
			return r;
		}
		t->known = true;
		r = 1;
	}
	memcpy(ret_identity, t->identity, DIGEST_SIZE);
	return r;
}
