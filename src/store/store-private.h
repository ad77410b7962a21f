/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Between store.c, which checks requests and chooses an implementation by the scheme of the URL,
 * and the implementations, which carry them out. A new implementation is one struct store_ops and
 * one row in store.c.
 */

#include "store/access.h"

enum store_verb {
	STORE_VERB_INSERT,
	STORE_VERB_GET,
	STORE_VERB_LIST,
	STORE_VERB_CLAIM,
	STORE_VERB_RENEW,
	STORE_VERB_FINISH,
	STORE_VERB_RELEASE,
	STORE_VERB_CANCEL_TASK,
	STORE_VERB_SWEEP,
	STORE_VERB_SCAN,
	STORE_VERB_PRUNE,
	STORE_VERB_OUTBOX_TAKE,
	STORE_VERB_OUTBOX_DONE,
	STORE_VERB_OUTBOX_PUT,
	STORE_VERB_OUTBOX_COUNT,
	STORE_VERB_LIVE,
	STORE_VERB_KEY_ADD,
	STORE_VERB_KEY_REVOKE,
	STORE_VERB_KEY_FORGET,
	STORE_VERB_KEY_LIST,
	STORE_VERB_TENANT_SET,
	STORE_VERB_TENANT_LIST,
	STORE_VERB_COUNT_QUEUED,
	STORE_VERB_PROBE,
	_STORE_VERB_MAX
};

struct store_ops {
	const char *scheme;
	bool has_outbox;

	/* rest is the URL behind the scheme's colon. The result embeds struct store as its first
	 * member, zeroed. */
	int (*open)(uv_loop_t *loop, const struct store_config *cfg, const char *rest,
		    struct store **ret_store, struct err *e);

	/* Carries out a request whose "in" fields were checked, sets its code, and ends with
	 * store_done from the loop, never from in here. It passes over those with "cancelled". */
	void (*submit)(struct store *s, struct store_req *req);

	/* Finishes all requests, frees what is the implementation's own, then calls store_closed
	 * from the loop. */
	void (*close)(struct store *s);

	/* As in store.h; each may be NULL: always reachable, this host's clock, upgraded by open.
	 */
	int (*health)(struct store *s, struct err *e);
	int64_t (*now_us)(struct store *s);
	int (*migrate)(const char *url, int *ret_from, int *ret_to, struct err *e);
};

/* First member of every implementation. */
struct store {
	const struct store_ops *ops;
	struct defer *defer;
	bool closing;
	bool outbox;
	int write_code;		 /* of the last write that failed; 0 since a probe has succeeded */
	int64_t write_failed_us; /* monotonic: when */
	void (*closed)(void *ctx);
	void *closed_ctx;
};

/* Bytes of what a probe writes: enough that a nearly full disk has no room for it. */
enum { STORE_PROBE_BYTES = 256 * 1024 };

extern const struct store_ops store_sqlite_ops, store_postgres_ops;

/* On the loop: the request is the caller's again. */
void store_done(struct store *s, struct store_req *req);

/* Ends the close, and frees s. */
void store_closed(struct store *s);

/* A stored spec, with its contents or without. -EIO where the bytes are damaged, -ENOMEM. */
int store_unpack_spec(const void *bytes, size_t len, bool contents, struct task_spec *ret_spec);

/* Takes out the outputs. */
void store_strip_result(struct task_result *r);
