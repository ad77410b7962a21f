/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What a task is. A task is one program (files, and perhaps a compile step with limits of its own)
 * and an ordered list of runs of it (stdin, arguments, limits, verdict). A submission over HTTP
 * makes one run.
 *
 * struct task_spec is what the client asked for and never changes; struct task_result is what came
 * of it and is written once; struct task is the row that ties both to a state.
 *
 * Units: times of day in microseconds since 1970 UTC, durations in milliseconds in what clients
 * ask for and microseconds in what was measured, sizes in bytes. Everything that these structures
 * point to is theirs; the _fini and _free functions accept zeroed structures and NULL.
 */

#include "base/cleanup.h"
#include "base/uuid7.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bounds of what a client may ask for, beside the configurable ceilings. */
enum {
	TASK_FILES_MAX = 100,	      /* beside the code */
	TASK_PROGRAM_FILES_MAX = 101, /* with it */
	TASK_FILE_NAME_MAX = 255,
	TASK_ARGS_MAX = 256,
	TASK_RUNS_MAX = 1024,
	TASK_LANGUAGE_MAX = 64,
	TASK_TENANT_MAX = 64,
	TASK_ATTEMPTS_MAX = 3,
};

enum task_class { TASK_CLASS_HIGH, TASK_CLASS_NORMAL, TASK_CLASS_LOW, _TASK_CLASS_MAX };

enum task_outcome {
	TASK_OUTCOME_NONE, /* the task did not end "done" */
	TASK_OUTCOME_OK,
	TASK_OUTCOME_COMPILE_ERROR,
	TASK_OUTCOME_RUNTIME_ERROR,
	TASK_OUTCOME_SIGNALLED,
	TASK_OUTCOME_TIME_LIMIT,
	TASK_OUTCOME_MEMORY_LIMIT,
	TASK_OUTCOME_OUTPUT_LIMIT,
	_TASK_OUTCOME_MAX
};

enum task_limit {
	TASK_LIMIT_NONE,
	TASK_LIMIT_CPU,
	TASK_LIMIT_WALL,
	TASK_LIMIT_MEMORY,
	TASK_LIMIT_OUTPUT,
	_TASK_LIMIT_MAX
};

enum task_stream { TASK_STDOUT, TASK_STDERR, _TASK_STREAM_MAX };

/* Owned bytes. data has a NUL behind its len bytes, or is NULL when there are none. */
struct bytes {
	char *data;
	size_t len;
};

void bytes_fini(struct bytes *b);
int bytes_set(struct bytes *b, const void *data, size_t len); /* copies; 0 or -ENOMEM */

/* What one run, or a compile step, may use. TASK_LIMIT_UNSET: the default of the language. */
enum { TASK_LIMIT_UNSET = -1 };

struct task_limits {
	int64_t cpu_ms;
	int64_t wall_ms;
	int64_t memory_bytes;
	int64_t processes;    /* processes and threads together */
	int64_t output_bytes; /* per stream */
	int64_t disk_bytes;   /* of the work directory */
	int64_t file_bytes;   /* of one file */
	int64_t open_files;
	int64_t stack_bytes;
};

/* The fields of struct task_limits as a table, for everything that goes through all of them. */
struct task_limit_field {
	const char *name; /* as in the API and in configuration */
	size_t offset;
};

extern const struct task_limit_field task_limit_fields[];
extern const size_t task_limit_fields_count;

void task_limits_unset(struct task_limits *l);
int64_t *task_limit_at(struct task_limits *l, const struct task_limit_field *f);
int64_t task_limit_get(const struct task_limits *l, const struct task_limit_field *f);

/* Fills what is unset in l from defaults. */
void task_limits_default(struct task_limits *l, const struct task_limits *defaults);

struct task_file {
	char *name;
	struct bytes content;
};

struct task_program {
	char *language; /* the registry's name, never an alias */
	char *entry;	/* name of the file that is compiled or run; one of files */
	struct task_file *files;
	size_t n_files;
	struct task_limits compile_limits;
};

struct task_run {
	char **args;
	size_t n_args;
	struct bytes stdin_data;
	struct task_limits limits; /* complete: defaults are filled in at submission */
	bool cold;		   /* not in an interpreter that was started beforehand */
};

struct task_spec {
	struct uuid id;
	char *tenant; /* "default" where no keys are in use */
	enum task_class class;
	int64_t created_us;
	int64_t deadline_us; /* to be claimed by then; 0: none */
	char *traceparent;   /* W3C trace context of the submission, or NULL */
	struct task_program program;
	struct task_run *runs;
	size_t n_runs;
};

void task_program_fini(struct task_program *p); /* for one that is part of no spec */
void task_run_fini(struct task_run *run);

/* Frees the contents of files and stdin: what is left says what was asked for. */
void task_spec_strip(struct task_spec *s);
void task_spec_fini(struct task_spec *s);
void task_spec_free(struct task_spec *s);
DEFINE_CLEANUP(struct task_spec, task_spec_free);

struct task_usage {
	int64_t cpu_us;
	int64_t wall_us;
	int64_t memory_bytes; /* peak; -1 where the limits in force cannot know it */
};

struct task_compile_result {
	bool ran;      /* the language has a compile step, and it was done or found in the cache */
	bool cached;   /* taken from the compile cache; usage is then zero */
	int exit_code; /* -1 where the compiler ended by a signal or a limit */
	enum task_limit limit_hit;
	struct bytes output; /* stdout and stderr of the compiler as they came */
	bool output_truncated;
	struct task_usage usage;
};

struct task_run_result {
	enum task_outcome outcome;
	int exit_code; /* holds for OK and RUNTIME_ERROR */
	int signal;    /* number, holds for SIGNALLED */
	enum task_limit limit_hit;
	struct bytes output[_TASK_STREAM_MAX];
	bool truncated[_TASK_STREAM_MAX];
	struct task_usage usage;
};

/* The walls that stood around a task; the words of the API's "isolation". */
struct task_isolation {
	char *level;  /* "sandbox", "pod", "vm" */
	char *limits; /* "cgroup2", "cgroup1", "rlimit" */
	bool namespaces;
	bool seccomp;
	int landlock;  /* ABI, 0 where there is none */
	char *standby; /* "none", "sandbox", "exec", "fork", "resident" */
};

struct task_result {
	enum task_outcome outcome; /* of the task: the first run that is not OK decides */
	bool ran;		   /* at least one run was started */
	struct task_compile_result compile;
	struct task_run_result *runs;
	size_t n_runs;
	struct task_isolation isolation;
	char *pod;
	char *error_code; /* set where Kiln failed: "runner_lost", "sandbox_failed", ... */
	char *error_message;
};

/* Of all outputs; 0 for NULL. */
size_t task_result_bytes(const struct task_result *r);
void task_result_fini(struct task_result *r);
void task_result_free(struct task_result *r);
DEFINE_CLEANUP(struct task_result, task_result_free);

enum task_state {
	TASK_QUEUED,
	TASK_RUNNING,
	TASK_DONE,
	TASK_CANCELLED,
	TASK_EXPIRED,
	TASK_FAILED,
	_TASK_STATE_MAX
};

struct task {
	struct task_spec spec;
	enum task_state state;
	int attempt;		    /* times claimed */
	bool cancelling;	    /* cancel was asked for while it runs */
	int64_t started_us;	    /* 0: not yet */
	int64_t finished_us;	    /* 0: not yet */
	struct task_result *result; /* NULL until final */
};

void task_free(struct task *t);
DEFINE_CLEANUP(struct task, task_free);

/* The state machine: one table, used by every store. */
bool task_state_may_move(enum task_state from, enum task_state to);
bool task_state_is_final(enum task_state state);

/* Names as in the API; parsers return -EINVAL for another word. outcome NONE has the name NULL. */
const char *task_state_name(enum task_state state);
const char *task_class_name(enum task_class class);
const char *task_outcome_name(enum task_outcome outcome);
const char *task_limit_name(enum task_limit limit); /* NULL for NONE */
int task_state_parse(const char *text, enum task_state *ret_state);
int task_class_parse(const char *text, enum task_class *ret_class);
