/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Who decides the sizes: an election by a Lease (coordination.k8s.io/v1), as in client-go's
 * leaderelection. Pure functions; elector.h does what they say.
 *
 * A lease is over when it has not changed for its duration, as seen from here by the monotonic
 * clock: times that others wrote are never compared with a clock. A write names the version that it
 * was decided on, so that of two who try one gets a 409. A leader that could not renew for
 * LEASE_DEADLINE_MS, counted from before it asked, stops, which is before anybody else begins.
 *
 * This does not keep two from believing that they lead, only from doing so for long: what a leader
 * does must be harmless from two (plan.h).
 */

#include "base/buf.h"
#include "pods/kube/object.h"

enum {
	LEASE_DURATION_MS = 15 * 1000,
	LEASE_DEADLINE_MS = 10 * 1000,
	LEASE_RETRY_MS = 2 * 1000,
	LEASE_HOLDER_MAX = 128,
};

struct lease_record {
	char holder[LEASE_HOLDER_MAX]; /* "": nobody */
	char version[KUBE_VERSION_MAX];
	int64_t duration_ms;
	int64_t transitions; /* how often it changed hands: an epoch */
	char acquired[40];   /* as written; when the holder got it */
};

struct lease {
	char self[LEASE_HOLDER_MAX];
	bool known;  /* record is what was seen last */
	bool absent; /* there is none */
	struct lease_record record;
	int64_t changed_ms; /* when record was last seen to be another */
	bool holding;	    /* our last write went through */
	int64_t renewed_ms; /* when it was asked for */
};

/* -EBADMSG: it is none. */
int lease_read(const json_t *object, struct lease_record *ret_record, struct err *e);

void lease_init(struct lease *l, const char *self);

/* What the server has. r is NULL where there is none. */
void lease_observe(struct lease *l, const struct lease_record *r, int64_t now_ms);

enum lease_verb { LEASE_LOOK, LEASE_CREATE, LEASE_UPDATE };

/* What to ask for now: to create or update is to take or renew it. */
enum lease_verb lease_next(const struct lease *l, int64_t now_ms);

/* A write that was asked for at asked_ms went through; r: what the server has now. */
void lease_won(struct lease *l, const struct lease_record *r, int64_t asked_ms, int64_t now_ms);

/* It was refused, since somebody was faster: what was seen is of no use any more. */
void lease_refused(struct lease *l);

bool lease_leads(const struct lease *l, int64_t now_ms);

/* The object for a write. release: to nobody, at once. */
void lease_write(const struct lease *l, const char *name, int64_t wall_us, bool release,
		 struct buf *b);
