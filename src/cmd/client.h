/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The API from the client's side, by libcurl: one call, one answer. A connection that is cut is
 * tried again, since every call here may be repeated (submissions carry an Idempotency-Key); a
 * server that is not there at all is told at once.
 *
 * Returns of client_call: 0 with the answer (any status), -ECONNREFUSED where there is no server,
 * -EINTR where it was interrupted, another negative errno. Messages are ready to be shown.
 */

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "cmd/interrupt.h"
#include "cmd/options.h"

#include <jansson.h>

struct client;

struct client_options {
	const char *server;   /* NULL: KILN_SERVER, else http://127.0.0.1:8080 */
	const char *key_file; /* NULL: KILN_API_KEY, else none */
};

/* Rows for options_parse. */
#define CLIENT_OPTION_ROWS(o)                                                                      \
	{.name = "server", .text = &(o)->server},                                                  \
	{                                                                                          \
		.name = "key-file", .text = &(o)->key_file                                         \
	}

#define CLIENT_USAGE                                                                               \
	"  --server URL        instead of KILN_SERVER or http://127.0.0.1:8080\n"                  \
	"  --key-file PATH     file with the API key, instead of KILN_API_KEY\n"

int client_new(const struct client_options *o, struct client **ret_client, struct err *e);
void client_free(struct client *c);
DEFINE_CLEANUP(struct client, client_free);

/* From now on calls end when there are enough of these signals; NULL: not. Not owned. */
void client_set_interrupt(struct client *c, struct interrupt *i);

struct client_answer {
	long status;
	struct buf body;
};

/* body NULL: none. idempotency_key NULL: none. The answer's buffer must be initialised. */
int client_call(struct client *c, const char *method, const char *path, const char *body,
		const char *idempotency_key, struct client_answer *answer, struct err *e);

/* client_call, with the answer as a JSON object that the caller releases; an answer that is no
 * success is an error made from its problem. Returns the status. ret_text: also its text (a buffer
 * that was initialised), may be NULL. */
int client_json(struct client *c, const char *method, const char *path, const char *body,
		const char *idempotency_key, json_t **ret_object, struct buf *ret_text,
		struct err *e);

/* The exit status that suits a negative return of the two. */
int client_exit_status(int code);
