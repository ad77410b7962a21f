/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What a server that is no Redis, or a broken one, can send: bytes in pieces of any size through
 * the bounded parser, and what comes out of it through what looks into messages.
 */

#include "bus/bus.h"
#include "bus/envelope.h"
#include "redis/reader.h"

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { REPLY_MAX = 4096 };

static volatile size_t sum;

/* Reads all of a text, its NUL too: a sanitizer sees what is not there. */
static void look_at_text(const struct redisReply *reply)
{
	struct envelope envelope;
	const void *payload;
	size_t len;

	if (!reply->str)
		return;
	if (strlen(reply->str) > reply->len)
		abort();
	for (size_t i = 0; i < reply->len; i++)
		sum += (uint8_t)reply->str[i];
	if (envelope_open(reply->str, reply->len, &envelope, &payload, &len) < 0)
		return;
	if (len > BUS_PAYLOAD_MAX)
		abort();
	for (size_t i = 0; i < len; i++)
		sum += ((const uint8_t *)payload)[i];
}

/* An array is small and flat. */
static void look_at(const struct redisReply *reply)
{
	look_at_text(reply);
	if (reply->elements > 8)
		abort();
	for (size_t i = 0; i < reply->elements; i++) {
		if (reply->element[i]->elements)
			abort();
		look_at_text(reply->element[i]);
	}
}

static int take_all(struct redis_reader *r)
{
	struct redisReply *reply;
	struct err e;
	int code;

	while ((code = redis_reader_next(r, &reply, &e)) > 0) {
		look_at(reply);
		freeReplyObject(reply);
	}
	return code;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct redis_reader *r = redis_reader_new(REPLY_MAX);
	size_t step = size ? (size_t)data[0] + 1 : 1;
	struct err e;

	if (!r)
		return 0;
	for (size_t at = 1; at < size; at += step) {
		size_t n = size - at < step ? size - at : step;

		if (redis_reader_feed(r, data + at, n, &e) < 0 || take_all(r) < 0)
			break;
	}
	redis_reader_free(r);
	return 0;
}
