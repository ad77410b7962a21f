/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The store's suite on SQLite, and what only SQLite has to show: files and their modes, damage, a
 * full disk, another process with the lock, and a death in the middle of a load.
 */

#include "store/outbox.h"
#include "store_suite.h"

#include "base/fs.h"
#include "base/str.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <spawn.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static char root[] = "/tmp/kiln-store-XXXXXX";
static char path[PATH_MAX], url[PATH_MAX + 16];

/* Each test has a folder of its own, which the store makes. */
static const char *fresh(void)
{
	static int n;

	(void)snprintf(path, sizeof path, "%s/%d/kiln.db", root, ++n);
	(void)snprintf(url, sizeof url, "sqlite:%s", path);
	return url;
}

static const struct store_backend backend = {.fresh = fresh};

static int try_open(struct fixture *f, struct err *e)
{
	struct store_config cfg = {.url = f->url, .busy_timeout_ms = 50};

	return store_open(&f->loop, &cfg, &f->store, e);
}

/* Runs statements on the file from outside. */
static void run_sql(const char *file, const char *sql)
{
	sqlite3 *db = NULL;

	assert_int_equal(sqlite3_open(file, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static unsigned mode_of(const char *file)
{
	struct stat st;

	assert_int_equal(stat(file, &st), 0);
	return st.st_mode & 07777;
}

/* ---- files ---- */

static void files_are_private(void **state)
{
	struct fixture *f = *state;
	char other[PATH_MAX + 8];

	(void)add_task(f);
	assert_int_equal(mode_of(path), 0600);
	(void)snprintf(other, sizeof other, "%s-wal", path);
	assert_int_equal(mode_of(other), 0600);
	(void)snprintf(other, sizeof other, "%s-shm", path);
	assert_int_equal(mode_of(other), 0600);
	*strrchr(other, '/') = '\0';
	assert_int_equal(mode_of(other), 0700);
}

static void close_leaves_one_file(void **state)
{
	struct fixture *f = *state;
	char other[PATH_MAX + 8];

	(void)add_task(f);
	fixture_close(f);
	(void)snprintf(other, sizeof other, "%s-wal", path);
	assert_int_equal(access(other, F_OK), -1);
	assert_int_equal(access(path, F_OK), 0);
}

static void open_takes_special_names_as_paths(void **state)
{
	static const char *const names[] = {":memory:", "file:x?mode=memory"};
	struct fixture *f = *state;
	char here[PATH_MAX];

	fixture_close(f);
	assert_non_null(getcwd(here, sizeof here));
	assert_int_equal(chdir(root), 0);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		char special[64];
		struct uuid id;

		(void)snprintf(special, sizeof special, "sqlite:%s", names[i]);
		f->url = special;
		fixture_open(f);
		id = add_task(f);
		fixture_close(f);
		fixture_open(f);
		assert_state(f, &id, TASK_QUEUED, 0);
		fixture_close(f);
		assert_int_equal(access(names[i], F_OK), 0);
	}
	assert_int_equal(chdir(here), 0);
}

static void open_without_path_refused(void **state)
{
	struct fixture *f = *state;
	struct err e = {""};

	fixture_close(f);
	f->url = "sqlite:";
	assert_int_equal(try_open(f, &e), -EINVAL);
	f->url = "sqlite:/proc/none/kiln.db";
	assert_true(try_open(f, &e) < 0);
	assert_non_null(strstr(e.msg, "/proc/none"));
}

static void outbox_is_refused(void **state)
{
	struct fixture *f = *state;
	struct store_outbox_take take = {.limit = 1, .limit_each = 1};
	struct err e = {""};

	assert_int_equal(RUN(outbox_take, f, &take), -ENOTSUP);
	assert_int_equal(store_migrate(f->url, NULL, NULL, &e), -ENOTSUP);
	assert_int_equal(store_health(f->store, &e), 0);
}

static void reopen_keeps_everything(void **state)
{
	struct fixture *f = *state;
	struct uuid id = add_task(f), done = add_task(f);
	struct task_result result;

	make_result(&result, TASK_OUTCOME_OK, 5000);
	assert_int_equal(finish(f, &done, claim(f, &done), TASK_DONE, &result), 0);
	task_result_fini(&result);
	fixture_close(f);
	fixture_open(f);
	assert_state(f, &id, TASK_QUEUED, 0);
	assert_state(f, &done, TASK_DONE, 1);
}

/* ---- durability ---- */

/* Taken in place of the C library's, for SQLite too: what a killed process cannot show, since the
 * kernel lives on, is whether anything was synced. */
static atomic_int syncs;

int fsync(int fd)
{
	(void)atomic_fetch_add(&syncs, 1);
	return (int)syscall(SYS_fsync, fd);
}

int fdatasync(int fd)
{
	(void)atomic_fetch_add(&syncs, 1);
	return (int)syscall(SYS_fdatasync, fd);
}

static void write_is_synced_before_it_is_done(void **state)
{
	struct fixture *f = *state;

	for (int i = 0; i < 10; i++) {
		int before = atomic_load(&syncs);
		struct uuid id = add_task(f);
		int inserted = atomic_load(&syncs);
		int claimed;

		assert_true(inserted > before);
		(void)claim(f, &id);
		claimed = atomic_load(&syncs);
		assert_true(claimed > inserted);
		assert_int_equal(finish(f, &id, 1, TASK_DONE, NULL), 0);
		assert_true(atomic_load(&syncs) > claimed);
	}
}

static void writes_that_arrive_together_share_syncs(void **state)
{
	enum { MANY = 200 };
	struct fixture *f = *state;
	struct task_spec *specs = calloc(MANY, sizeof *specs);
	struct store_insert *r = calloc(MANY, sizeof *r);
	int before = atomic_load(&syncs);
	struct waiter w = {0};

	assert_true(specs && r);
	for (size_t i = 0; i < MANY; i++) {
		make_spec(&specs[i], &(struct spec_options){0});
		r[i].spec = &specs[i];
		BEGIN(insert, f, &w, &r[i]);
	}
	assert_int_equal(wait_all(f, &w), 0);
	assert_true(atomic_load(&syncs) - before < MANY / 2);
	for (size_t i = 0; i < MANY; i++)
		task_spec_fini(&specs[i]);
	free(specs);
	free(r);
}

/* ---- what must not be opened ---- */

static void open_of_newer_schema_refused(void **state)
{
	struct fixture *f = *state;
	struct err e = {""};

	fixture_close(f);
	run_sql(path, "PRAGMA user_version = 99");
	assert_int_equal(try_open(f, &e), -ENOTSUP);
	assert_non_null(strstr(e.msg, "99"));
	/* What an upgrade would make is there already. */
	run_sql(path, "DROP TABLE tenant; PRAGMA user_version = 1");
	fixture_open(f);
}

static void open_of_foreign_database_refused_and_unchanged(void **state)
{
	struct fixture *f = *state;
	struct err e = {""};
	char wal[PATH_MAX + 8];

	fixture_close(f);
	assert_int_equal(unlink(path), 0);
	run_sql(path, "CREATE TABLE mine (x); INSERT INTO mine VALUES (1)");
	assert_int_equal(try_open(f, &e), -EUCLEAN);
	assert_non_null(strstr(e.msg, "another program"));
	(void)snprintf(wal, sizeof wal, "%s-wal", path);
	assert_int_equal(access(wal, F_OK), -1);
	run_sql(path, "INSERT INTO mine VALUES (2)");
}

static void write_at(const char *file, off_t at, const void *bytes, size_t len)
{
	AUTO_FD int fd = open(file, O_WRONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, bytes, len, at), len);
}

static void open_of_damaged_file_refused(void **state)
{
	struct fixture *f = *state;
	struct err e = {""};
	char junk[512];

	memset(junk, 0x5a, sizeof junk);
	(void)add_task(f);
	fixture_close(f);
	/* Half of it is gone. */
	assert_int_equal(truncate(path, 8192), 0);
	assert_int_equal(try_open(f, &e), -EUCLEAN);
	assert_non_null(strstr(e.msg, path));
	assert_non_null(strstr(e.msg, "malformed"));
	/* Its first page is something else. */
	write_at(path, 0, junk, sizeof junk);
	assert_int_equal(try_open(f, &e), -EUCLEAN);
	assert_non_null(strstr(e.msg, "not a database"));
}

static void damage_found_later_is_an_error_not_a_crash(void **state)
{
	struct fixture *f = *state;
	char junk[4096];
	struct stat st;
	struct uuid ids[200];
	int bad = 0;

	for (size_t i = 0; i < ARRAY_SIZE(ids); i++)
		ids[i] = add_task(f);
	fixture_close(f);
	memset(junk, 0x5a, sizeof junk);
	assert_int_equal(stat(path, &st), 0);
	/* All but the first page and the schema's: every table's pages. */
	for (off_t at = 4 * 4096; at < st.st_size; at += 4096)
		write_at(path, at, junk, sizeof junk);
	fixture_open(f);
	for (size_t i = 0; i < ARRAY_SIZE(ids); i++) {
		struct store_get get = {.id = ids[i]};
		int code = RUN(get, f, &get);

		assert_true(code == 0 || code == -EIO || code == -ENOENT);
		bad += code == -EIO;
		task_free(get.task);
	}
	assert_true(bad > 0);
}

/* ---- others with the lock ---- */

static void locked_by_another_says_try_again(void **state)
{
	struct fixture *f = *state;
	struct task_spec spec;
	struct store_insert r = {.spec = &spec};
	struct uuid before = add_task(f);
	sqlite3 *db = NULL;

	make_spec(&spec, &(struct spec_options){0});
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
	assert_int_equal(RUN(insert, f, &r), -EAGAIN);
	/* Reads go on. */
	assert_state(f, &before, TASK_QUEUED, 0);
	assert_int_equal(sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
	assert_int_equal(RUN(insert, f, &r), 0);
	task_spec_fini(&spec);
}

/* ---- a full disk ---- */

static int write_text(const char *file, const char *text)
{
	AUTO_FD int fd = open(file, O_WRONLY | O_CLOEXEC);

	return fd < 0 ? -errno : fs_write_all(fd, text, strlen(text));
}

/* Mounts a small tmpfs, in a mount namespace of our own, as root or as root of a user namespace. */
static bool mount_small(const char *where)
{
	char map[64];

	if (unshare(CLONE_NEWNS) < 0) {
		uid_t uid = getuid();

		if (unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0)
			return false;
		(void)snprintf(map, sizeof map, "0 %u 1", uid);
		if (write_text("/proc/self/uid_map", map) < 0)
			return false;
	}
	return mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
	       mount("tmpfs", where, "tmpfs", 0, "size=3m,mode=700") == 0;
}

/* Leaves about "spare" bytes of the small disk free. */
static void fill_disk(const char *file, size_t spare)
{
	AUTO_FD int fd = open(file, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	char block[4096] = {0};
	struct stat st;

	assert_true(fd >= 0);
	while (write(fd, block, sizeof block) == (ssize_t)sizeof block)
		;
	assert_int_equal(errno, ENOSPC);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(ftruncate(fd, st.st_size - (off_t)spare), 0);
}

static int insert_one(struct fixture *f, struct uuid *ret_id)
{
	struct task_spec spec;
	struct store_insert r = {.spec = &spec};
	int code;

	make_spec(&spec, &(struct spec_options){0});
	*ret_id = spec.id;
	code = RUN(insert, f, &r);
	task_spec_fini(&spec);
	return code;
}

static void full_disk_refuses_then_recovers(void **state)
{
	enum { MANY = 2000 };
	struct fixture *f = *state;
	char disk[PATH_MAX + 8], full_url[PATH_MAX + 32], filler[PATH_MAX + 16];
	struct uuid *kept = calloc(MANY, sizeof *kept), refused, later;
	struct store_get get = {0};
	struct store_probe probe = {0};
	int64_t ago_us = 0;
	size_t n = 0;
	int code = 0;

	fixture_close(f);
	assert_non_null(kept);
	(void)snprintf(disk, sizeof disk, "%s/disk", root);
	(void)snprintf(filler, sizeof filler, "%s/filler", disk);
	(void)snprintf(full_url, sizeof full_url, "sqlite:%s/kiln.db", disk);
	assert_int_equal(mkdir(disk, 0700), 0);
	if (!mount_small(disk)) {
		free(kept);
		print_message("# neither root nor user namespaces: no small disk can be mounted\n");
		skip();
	}
	f->url = full_url;
	fixture_open(f);
	fill_disk(filler, 256 * 1024);
	while (n < MANY && (code = insert_one(f, &refused)) == 0)
		kept[n++] = refused;
	assert_int_equal(code, -ENOSPC);
	assert_true(n > 0);
	for (int i = 0; i < 5; i++)
		assert_int_equal(insert_one(f, &refused), -ENOSPC);
	/* What was acknowledged can be read all the while; what was refused is not there. */
	assert_state(f, &kept[0], TASK_QUEUED, 0);
	assert_state(f, &kept[n - 1], TASK_QUEUED, 0);
	get.id = refused;
	assert_int_equal(RUN(get, f, &get), -ENOENT);
	assert_int_equal(store_write_health(f->store, &ago_us), -ENOSPC);
	assert_int_equal(RUN(probe, f, &probe), -ENOSPC);
	assert_int_equal(store_write_health(f->store, &ago_us), -ENOSPC);
	assert_in_range(ago_us, 0, 60000000);

	assert_int_equal(unlink(filler), 0);
	assert_int_equal(RUN(probe, f, &probe), 0);
	assert_int_equal(store_write_health(f->store, &ago_us), 0);
	assert_int_equal(insert_one(f, &later), 0);
	fixture_close(f);
	fixture_open(f);
	for (size_t i = 0; i < n; i++)
		assert_state(f, &kept[i], TASK_QUEUED, 0);
	assert_state(f, &later, TASK_QUEUED, 0);
	fixture_close(f);
	free(kept);
	assert_int_equal(umount(disk), 0);
}

/* ---- death in the middle of a load ---- */

enum { VICTIM_REQUESTS = 8 };

struct victim {
	struct fixture f;
	struct task_spec specs[VICTIM_REQUESTS];
	struct store_insert inserts[VICTIM_REQUESTS];
};

static void victim_insert(struct victim *v, size_t i);

/* The id is told only after its insert was acknowledged. */
static void on_victim_inserted(struct store_req *req, int code)
{
	struct victim *v = req->ctx;
	size_t i = (size_t)(container_of(req, struct store_insert, req) - v->inserts);

	if (code < 0 || fs_write_all(STDOUT_FILENO, v->specs[i].id.bytes, 16) < 0)
		_exit(1);
	victim_insert(v, i);
}

static void victim_insert(struct victim *v, size_t i)
{
	uuid7_new(&v->specs[i].id);
	v->inserts[i] = (struct store_insert){
		.req = {.done = on_victim_inserted, .ctx = v},
		.spec = &v->specs[i],
	};
	store_insert(v->f.store, &v->inserts[i]);
}

/* The child: inserts until it is killed. */
static int victim_main(const char *victim_url)
{
	static struct victim v;
	struct store_config cfg = {.url = victim_url};

	if (uv_loop_init(&v.f.loop) < 0 || store_open(&v.f.loop, &cfg, &v.f.store, NULL) < 0)
		return 1;
	for (size_t i = 0; i < VICTIM_REQUESTS; i++) {
		make_spec(&v.specs[i], &(struct spec_options){0});
		victim_insert(&v, i);
	}
	return uv_run(&v.f.loop, UV_RUN_DEFAULT);
}

static pid_t spawn_victim(const char *victim_url, int out)
{
	char *argv[] = {strdup("victim"), strdup("--insert"), strdup(victim_url), NULL};
	posix_spawn_file_actions_t actions;
	pid_t pid = -1;

	assert_int_equal(posix_spawn_file_actions_init(&actions), 0);
	assert_int_equal(posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO), 0);
	assert_int_equal(posix_spawn(&pid, "/proc/self/exe", &actions, NULL, argv, environ), 0);
	(void)posix_spawn_file_actions_destroy(&actions);
	for (size_t i = 0; argv[i]; i++)
		free(argv[i]);
	return pid;
}

static void killed_store_keeps_what_it_acknowledged(void **state)
{
	enum { ROUNDS = 3, WANT = 16 * 300 };
	struct fixture *f = *state;

	for (int round = 0; round < ROUNDS; round++) {
		struct buf ids;
		int pipe_fds[2], status;
		char chunk[1024];
		ssize_t n;
		pid_t pid;

		fixture_close(f);
		buf_init(&ids, 64 * 1024 * 1024);
		assert_int_equal(pipe2(pipe_fds, O_CLOEXEC), 0);
		pid = spawn_victim(f->url, pipe_fds[1]);
		assert_int_equal(close(pipe_fds[1]), 0);
		while ((n = read(pipe_fds[0], chunk, sizeof chunk)) > 0) {
			assert_int_equal(buf_append(&ids, chunk, (size_t)n), 0);
			if (ids.len >= WANT)
				(void)kill(pid, SIGKILL);
		}
		assert_int_equal(close(pipe_fds[0]), 0);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
		assert_true(ids.len >= WANT);

		fixture_open(f);
		for (size_t at = 0; at + 16 <= ids.len; at += 16) {
			struct uuid id;

			memcpy(id.bytes, ids.data + at, sizeof id.bytes);
			assert_state(f, &id, TASK_QUEUED, 0);
		}
		buf_fini(&ids);
	}
}

/* ---- main ---- */

static const struct CMUnitTest own[] = {
	CASE(files_are_private),
	CASE(close_leaves_one_file),
	CASE(open_takes_special_names_as_paths),
	CASE(open_without_path_refused),
	CASE(outbox_is_refused),
	CASE(reopen_keeps_everything),
	CASE(write_is_synced_before_it_is_done),
	CASE(writes_that_arrive_together_share_syncs),
	CASE(open_of_newer_schema_refused),
	CASE(open_of_foreign_database_refused_and_unchanged),
	CASE(open_of_damaged_file_refused),
	CASE(damage_found_later_is_an_error_not_a_crash),
	CASE(locked_by_another_says_try_again),
	CASE(full_disk_refuses_then_recovers),
	CASE(killed_store_keeps_what_it_acknowledged),
};

static int remove_all(const char *what)
{
	char *argv[] = {strdup("rm"), strdup("-rf"), strdup("--"), strdup(what), NULL};
	int status = -1;
	pid_t pid;

	if (posix_spawnp(&pid, "rm", NULL, NULL, argv, environ) == 0)
		(void)waitpid(pid, &status, 0);
	for (size_t i = 0; argv[i]; i++)
		free(argv[i]);
	return status;
}

int main(int argc, char **argv)
{
	struct CMUnitTest tests[128];
	size_t n = 0;
	int failed;

	if (argc == 3 && str_eq(argv[1], "--insert"))
		return victim_main(argv[2]);
	if (!mkdtemp(root))
		return 99;
	store_backend = &backend;
	for (size_t i = 0; i < store_suite_tasks_count; i++)
		tests[n++] = store_suite_tasks[i];
	for (size_t i = 0; i < store_suite_moves_count; i++)
		tests[n++] = store_suite_moves[i];
	for (size_t i = 0; i < ARRAY_SIZE(own); i++)
		tests[n++] = own[i];
	failed = _cmocka_run_group_tests("store on SQLite", tests, n, NULL, NULL);
	return remove_all(root) ? 98 : failed;
}
