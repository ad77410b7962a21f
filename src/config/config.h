/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The configuration of a server. One table (config_table.c) has each key once: name, kind, bounds,
 * default, help. The same table reads, in rising order,
 *
 *	a YAML file	limits: {cpu_ms: 2s}	named by --config or KILN_CONFIG
 *	the environment	KILN_LIMITS_CPU_MS=2s
 *	flags		--limits.cpu_ms=2s	("-" and "_" are the same in flags)
 *
 * and prints what came of it, with the place that each value is from. Unknown keys, flags and
 * KILN_* variables are errors that name a near one: a misspelt limit must not be no limit. Let
 * through are those that clients read, and KILN_BUILD, KILN_TEST_* and KILN_STACK_* of the scripts
 * of the source tree.
 *
 * Durations take 250ms, 15s, 5m, 24h, 7d, or a number of milliseconds; sizes 64KiB, 1GiB, or bytes.
 * This module is the only one that reads the environment.
 */

#include "base/cleanup.h"
#include "base/err.h"
#include "base/log.h"
#include "task/task.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum { CONFIG_FILE_MAX = 64 * 1024, CONFIG_KEYS_MAX = 128 };

/* How the value of a key was come by; text for people, "default", "kiln.yaml:3", "--slots". */
struct config_origin;

struct config {
	char *listen;		   /* "127.0.0.1:8080" */
	char *metrics_listen;	   /* of a scheduler on its own: "127.0.0.1:9465" */
	char *data_dir;		   /* absolute or relative to the working directory */
	char *store;		   /* "sqlite:PATH" */
	char *queue;		   /* "memory:" */
	char *cache;		   /* "memory:" */
	char *pods;		   /* "local:" */
	char *cluster_secret_file; /* "": none */
	char *languages;	   /* folder */
	char *setup_dir;	   /* folder, or "none" */
	char **hosts;		   /* further names that a Host header may have; NULL-terminated */
	bool open;		   /* serve other machines without keys */
	int64_t slots;
	int64_t slots_per_runner;

	struct task_limits limits, compile_limits; /* where task and language say nothing */
	struct task_limits ceilings, compile_ceilings;

	int64_t body_max_bytes;
	int64_t queue_max;	    /* tasks waiting */
	int64_t admit_max;	    /* into a broker, of one tenant, language and priority */
	int64_t tenant_running_max; /* 0: any number, as of all limits of tenants */
	int64_t tenant_queued_max;
	int64_t tenant_rate; /* a minute */
	int64_t tenant_burst;
	int64_t cache_max_bytes;
	int64_t compile_cache_bytes;
	bool compile_cache_shared;  /* between tenants */
	int64_t standby_bytes;	    /* for interpreters that stand by, in each runner */
	int64_t fork_bytes;	    /* for those that tasks are forked of */
	int64_t resident_compilers; /* programs that one compiles, all of one tenant */
	int64_t connection_max;
	int64_t connection_max_per_address; /* 0: as connection_max */
	int64_t waiters_max;		    /* requests with ?wait= at one time */
	int64_t retention_ms;
	int64_t idempotency_ttl_ms;
	int64_t lease_ms;
	int64_t drain_ms; /* at SIGTERM: for the tasks that run */
	int64_t weights[_TASK_CLASS_MAX];

	char *sandbox_limits;	     /* "auto", "cgroup2", "cgroup1", "rlimit" */
	char *sandbox_min_isolation; /* "netns,seccomp": without one of these no code is run */
	int64_t sandbox_uid_base;    /* 0: chosen */

	char *user;	   /* of the server when started as root; "": chosen */
	char *runner_user; /* of the runner */
	enum log_level log_level;

	char *otlp_endpoint; /* "": nothing is traced */
	char **otlp_headers;
	int64_t trace_percent;

	struct config_origin *origins; /* by place in the table */
};

/* argv[0] is skipped; every other argument must be a flag. env is the environment to read
 * (environ). */
int config_load(int argc, char **argv, char **env, struct config **ret_config, struct err *e);
void config_free(struct config *c);
DEFINE_CLEANUP(struct config, config_free);

/* The effective configuration as YAML that config_load takes, each line with its origin as a
 * comment. Of addresses it has what url_show (base/url.h) tells. */
void config_print(const struct config *c, FILE *out);

/* Every key with its kind, default and help. */
void config_print_keys(FILE *out);

/* A variable of the environment for the client side of the command line; NULL where unset or
 * empty. */
const char *config_env(const char *name);
