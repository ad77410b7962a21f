/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Who may use Kiln, and how much of it: the keys and the tenants that the store keeps. Verbs as in
 * store.h.
 */

#include "store/store.h"

/* ---- keys ---- */

enum { STORE_KEY_NAME_MAX = 64 };

/* A tenant may have several, so that one is replaced without a gap. */
struct store_key {
	char name[STORE_KEY_NAME_MAX];
	char tenant[TASK_TENANT_MAX];
	uint8_t hash[STORE_HASH_SIZE]; /* SHA-256 of the key: keys are random, so one round is
					  enough */
	int64_t created_us;
	int64_t revoked_us; /* 0: in force */
};

struct store_key_add {
	struct store_req req;
	struct store_key
		key; /* in; -EEXIST where the name is in force; a revoked one is replaced */
};
void store_key_add(struct store *s, struct store_key_add *r);

struct store_key_revoke {
	struct store_req req;
	const char *name; /* in; -ENOENT; a key once revoked keeps its first time */
	int64_t now_us;	  /* in */
};
void store_key_revoke(struct store *s, struct store_key_revoke *r);

/* Forgets all keys, so that it is as if there never was one. -EBUSY where one is in force. */
struct store_key_forget {
	struct store_req req;
};
void store_key_forget(struct store *s, struct store_key_forget *r);

struct store_key_list {
	struct store_req req;
	struct store_key *keys; /* out: array of n */
	size_t n;		/* out */
};
void store_key_list(struct store *s, struct store_key_list *r);

/* ---- tenants ---- */

/* What a tenant may do; each is 0 for no limit. */
enum tenant_limit {
	TENANT_RATE,	/* submissions a minute */
	TENANT_BURST,	/* of them at once */
	TENANT_QUEUED,	/* tasks that wait */
	TENANT_RUNNING, /* tasks that run at one time */
	_TENANT_LIMIT_MAX
};

enum { STORE_TENANT_UNSET = -1 }; /* as the server's configuration has it */

struct store_tenant {
	char name[TASK_TENANT_MAX];
	int64_t limits[_TENANT_LIMIT_MAX]; /* or STORE_TENANT_UNSET */
};

/* Keeps what differs from the configuration; with all limits unset the tenant is forgotten. */
struct store_tenant_set {
	struct store_req req;
	struct store_tenant tenant; /* in */
};
void store_tenant_set(struct store *s, struct store_tenant_set *r);

/* In order of their names. */
struct store_tenant_list {
	struct store_req req;
	struct store_tenant *tenants; /* out: array of n */
	size_t n;		      /* out */
};
void store_tenant_list(struct store *s, struct store_tenant_list *r);

/* Counts the queued tasks of a tenant, but no further than to a limit. */
struct store_count_queued {
	struct store_req req;
	const char *tenant; /* in */
	size_t limit;	    /* in: at least 1 */
	size_t n;	    /* out */
};
void store_count_queued(struct store *s, struct store_count_queued *r);
