/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Interpreters that tasks are forked of (sandbox/zygote.h), in the places of a nursery: one for
 * each language and tenant that asks, with boxes of its own in which a fork of it waits. It never
 * runs a user's code. What all of its forks share, the seed of its hashes and where it has its
 * memory, is one tenant's, and only for a time: after so many tasks, or minutes, another takes its
 * place. Which tenants and languages have one follows what is asked for, within a budget of memory.
 */

#include "base/cleanup.h"
#include "base/err.h"
#include "runner/box.h"
#include "sandbox/nursery.h"
#include "task/language.h"

#include <stddef.h>
#include <stdint.h>
#include <uv.h>

enum {
	ZYGOTE_FORKS_MAX = 10000,
	ZYGOTE_AGE_MS = 10 * 60 * 1000,
	ZYGOTE_IDLE_MS = 10 * 60 * 1000,
};

struct zygotes;

struct zygotes_config {
	uv_loop_t *loop;
	struct nursery *nursery; /* the caller's; outlives this */
	const char *languages;	 /* folder of the language files */
	const char *library;	 /* path of kiln-zygote.so */
	const struct sandbox_reply_configured
		*in_force; /* what must stand around their boxes, too */
	unsigned ready;	   /* boxes that wait in each */
	uint64_t budget_bytes;
	uint64_t forks_max; /* of one */
	struct sandbox_limits expected;
};

int zygotes_new(const struct zygotes_config *cfg, struct zygotes **ret_zygotes, struct err *e);
void zygotes_free(struct zygotes *z); /* accepts NULL */
DEFINE_CLEANUP(struct zygotes, zygotes_free);

/* Where a run of the language for the tenant finds forks, for step_start at once; NULL where it is
 * to start as usual. In both cases it is learnt from. */
struct box_pool *zygotes_ask(struct zygotes *z, const struct language *language, const char *tenant,
			     const char *entry);

/* Boxes in which forks wait. */
unsigned zygotes_ready(const struct zygotes *z);

/* What all of them count for within the budget. */
uint64_t zygotes_bytes(const struct zygotes *z);

/* Each interpreter: its language, and the boxes in which forks of it wait; NULL while it serves
 * nobody. */
void zygotes_each(const struct zygotes *z,
		  void (*each)(void *ctx, const struct language *language,
			       const struct box_pool *forks),
		  void *ctx);
