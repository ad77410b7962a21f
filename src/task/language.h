/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The language registry: one YAML file per language and version, read once at start. The registry
 * says how a language is compiled and run; whether its toolchain is there is found out where tasks
 * run, and told by the runners (language_set_status).
 *
 * All strings belong to the registry and live as long as it does.
 */

#include "base/cleanup.h"
#include "base/err.h"
#include "task/task.h"

#include <stdbool.h>
#include <stddef.h>

enum { LANGUAGE_FILE_MAX = 64 * 1024, LANGUAGES_MAX = 256 };

/*
 * An argument vector ends with NULL. Placeholders in it, put in by language_argv:
 *	{entry}       the program's entry file
 *	{stem}        its name without the extension
 *	{sources}     alone in an argument: the entry, then every other file of the program with one
 *		      of the language's extensions, each an argument of its own
 *	{memory_mib}  the memory limit of the step, rounded down
 *	{setup}       the folder with what the language made beforehand; an argument with it is left
 *		      out where there is none
 */
struct language_standby {
	char **argv;	      /* NULL: none; starts before there is a program, and waits for one */
	int64_t memory_bytes; /* what one costs that waits */
	bool args;	      /* it can take arguments */
	char *fork;	      /* NULL: each is started; else tasks are forked of one, which finds
			       * what makes that of it in this folder beside the language files */
	char *variable;	      /* of its environment, that is to have the folder's path */
	bool preload;	      /* kiln-zygote-FORK.so stands in front of its libraries */
	char **imports;	      /* what programs are going to want, or NULL */
};

struct language_step {
	char **argv;	  /* NULL: the language has no such step */
	char **produces;  /* patterns of the files that a compile step hands to the runs */
	char **toolchain; /* patterns of host files and folders that a compile step depends on,
			   * beside its program: another one there makes cached builds stale */
	struct task_limits limits; /* defaults of this language for the step; unset: the server's */
	struct language_standby standby;
	struct language_standby resident; /* of a compile step: serves many programs of a tenant */
};

struct language_env {
	char *name;
	char *value;
};

struct language_file {
	char *name;
	char *text;
};

/* What is made once for a toolchain, for the steps of all programs: see runner/setup.h. */
struct language_setup {
	struct language_file *files; /* laid into the folder that the commands run in */
	size_t n_files;
	char ***commands; /* argument vectors without placeholders; NULL at the end, and where the
			   * language has no setup */
	char **produces;  /* files, by name */
};

/* One check program, run by "languages check": which steps exist and what must come out. */
struct language_check {
	char *name; /* "hello", "stdin", "exit_code", "compile_error", "time_limit", ... */
	char *code;
	char *stdin_text;    /* NULL: none */
	char **args;	     /* NULL: none */
	char *expect_stdout; /* NULL: anything */
	char *expect_stderr; /* NULL: anything */
	enum task_outcome expect_outcome;
	int expect_exit_code; /* -1: anything */
	struct task_limits limits;
};

struct language {
	char *name;
	char *title; /* for people: "C++ 17 (gcc)" */
	char **aliases;
	char **extensions; /* with the dot */
	char *source;	   /* default name of the source file */
	char **version_argv;
	char *install_debian; /* packages, for "apt-get install" */
	struct language_step compile;
	struct language_step run;
	struct language_setup setup;
	struct language_env *env;
	size_t n_env;
	char **mounts; /* host paths that the sandbox shows read-only beside the common ones */
	struct language_check *checks;
	size_t n_checks;
	char revision[65]; /* SHA-256 of the file, hex: part of the compile cache's key */

	/* Found out at run time. */
	bool installed;
	char *version; /* first line that version_argv printed, NULL while unknown */
};

struct language_registry;

/* Reads every *.yaml in the folder. A file with an error is an error that names file, line and
 * column: a server that silently lacks a language would be worse. */
int language_registry_load(const char *dir, struct language_registry **ret_registry, struct err *e);
void language_registry_free(struct language_registry *r);
DEFINE_CLEANUP(struct language_registry, language_registry_free);

size_t language_count(const struct language_registry *r);
struct language *language_at(const struct language_registry *r, size_t i); /* by name */

/* By name or alias; NULL where unknown. */
struct language *language_find(const struct language_registry *r, const char *name);
struct language *language_find_by_extension(const struct language_registry *r, const char *path);

/* Up to max names near to an unknown one, nearest first. Returns how many. */
size_t language_near(const struct language_registry *r, const char *name, const char **ret_names,
		     size_t max);

/* What the placeholders stand for that is not the program's. */
struct language_words {
	int64_t memory_bytes;
	const char *setup; /* NULL: nothing was made */
};

/* The argument vector of a step for a program, placeholders replaced: NULL-terminated, with the
 * n_args further arguments at its end; all of it is the caller's (language_argv_free). -EINVAL
 * where the step has no argv, -ENOMEM. */
int language_argv(const struct language *l, const struct language_step *step,
		  const struct task_program *program, const struct language_words *words,
		  char *const *args, size_t n_args, char ***ret_argv);
void language_argv_free(char **argv);

/* version is copied; NULL forgets it. 0 or -ENOMEM. */
int language_set_status(struct language *l, bool installed, const char *version);
