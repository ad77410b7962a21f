/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/zygote.h"

#include "sandbox/box.h"
#include "sandbox/io.h"
#include "sandbox/spawner.h"
#include "sandbox/syscalls.h"

#include <dlfcn.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>

#define EXPORT __attribute__((visibility("default")))

enum { MAPS_MAX = 256 * 1024 };

static jmp_buf resumed;
static struct zygote_program program;

/* Has fork copy the tables of code: what else is mapped of a file may differ from it. Its first
 * page, away for a moment, has no call that is needed here; ours could, and see spawner_serve. */
static void note_code(const char *line)
{
	unsigned long long from, to;
	const uintptr_t here = (uintptr_t)note_code;
	char rights[8], path[8];

	if (sscanf(line, "%llx-%llx %7s %*s %*s %*s %7s", &from, &to, rights, path) == 4 &&
	    path[0] == '/' && strcmp(rights, "r-xp") == 0 && (here < from || here >= to))
		sys_copy_tables_on_fork((uintptr_t)from);
}

static void look_at_code(void)
{
	static char text[MAPS_MAX];
	char *save = NULL;

	if (io_read_at(AT_FDCWD, "/proc/self/maps", text, sizeof(text)) < 0)
		return;
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
		note_code(line);
	memset(text, 0, sizeof(text));
}

static struct spawner spawner;

/* Nothing is left of what the spawner knew of other tasks. */
static _Noreturn void resume(const char **argv, const char **envp)
{
	program = (struct zygote_program){argv, envp};
	memset(&spawner, 0, sizeof(spawner));
	longjmp(resumed, 1);
}

/* ---- the end of a Python ---- */

enum { PY_TP_INIT = 60, TYPE_WORDS_MAX = 64 };

/* As many arguments as any of them has. */
typedef void *python_function(void *a, void *b, void *c, void *d);

static struct noted {
	python_function *was;
} init_exit, sys_exit;
static int exits;

static void *note_init(void *self, void *args, void *kwargs, void *none)
{
	exits++;
	return init_exit.was(self, args, kwargs, none);
}

static void *note_call(void *self, void *args, void *n, void *names)
{
	exits++;
	return sys_exit.was(self, args, n, names);
}

static void *symbol(const char *name)
{
	return dlsym(RTLD_DEFAULT, name);
}

static bool put(void **at, struct noted *n, python_function *ours)
{
	memcpy(&n->was, at, sizeof(n->was));
	memcpy(at, &ours, sizeof(ours));
	return true;
}

/* Where in a structure something is differs from version to version; that it is in it does not. */
static void **find(void **words, size_t n, const void *value)
{
	for (size_t i = 0; value && i < n; i++)
		if (words[i] == value)
			return &words[i];
	return NULL;
}

/* A class that is derived of it may do without: such a program is not plain anyway. */
static bool watch_type(void)
{
	void *get_slot = symbol("PyType_GetSlot"), **type = symbol("PyExc_SystemExit"), **at;
	void *(*slot)(void *type, int number);

	if (!get_slot || !type)
		return false;
	memcpy(&slot, &get_slot, sizeof(slot));
	at = find(*type, TYPE_WORDS_MAX, slot(*type, PY_TP_INIT));
	return at && put(at, &init_exit, note_init);
}

/* A function's object points to the definition of the function, which has the name in front. */
static bool watch_function(void **object)
{
	void *get_function = symbol("PyCFunction_GetFunction"), *function, **definition;
	void *(*get)(void *object);

	if (!get_function)
		return false;
	memcpy(&get, &get_function, sizeof(get));
	function = get(object);
	/* After the reference count and the type. */
	definition = object[2];
	return function && definition[1] == function && put(&definition[1], &sys_exit, note_call);
}

EXPORT int kiln_zygote_watch(void *exit)
{
	return watch_type() && watch_function(exit) ? 0 : -1;
}

EXPORT int kiln_zygote_exits(void)
{
	return exits;
}

EXPORT _Noreturn void kiln_zygote_leave(void)
{
	(void)fflush(NULL);
	_exit(0);
}

EXPORT void kiln_zygote_serve(int control_fd, struct zygote_program *ret_program)
{
	if (setjmp(resumed) == 0) {
		look_at_code();
		/* An ordinary user's could not map its ids any more. */
		if (geteuid() == 0 && prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
			_exit(1);
		spawner.control = control_fd;
		spawner.plan.resume = resume;
		(void)spawner_serve(&spawner);
	}
	*ret_program = program;
}
