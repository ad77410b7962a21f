/* SPDX-License-Identifier: Apache-2.0 */
#include "redis/reader.h"

#include <errno.h>
#include <stdlib.h>

enum { ELEMENTS_MAX = 8 };

struct redis_reader {
	redisReader *hiredis;
	redisReplyObjectFunctions functions; /* hiredis' own, but for arrays */
	void *(*create_array)(const redisReadTask *task, int elements);
	size_t max_bytes;
};

/* NULL makes the parser give up. privdata of the outermost task is the reader's; where there is a
 * parent, it is an array within an array. */
static void *create_array(const redisReadTask *task, int elements)
{
	const struct redis_reader *r = task->privdata;

	if (task->parent || elements > ELEMENTS_MAX)
		return NULL;
	return r->create_array(task, elements);
}

struct redis_reader *redis_reader_new(size_t max_bytes)
{
	struct redis_reader *r = calloc(1, sizeof *r);

	if (!r)
		return NULL;
	r->hiredis = redisReaderCreate();
	if (!r->hiredis) {
		free(r);
		return NULL;
	}
	r->functions = *r->hiredis->fn;
	r->create_array = r->functions.createArray;
	r->functions.createArray = create_array;
	r->hiredis->fn = &r->functions;
	r->hiredis->privdata = r;
	r->max_bytes = max_bytes;
	return r;
}

void redis_reader_free(struct redis_reader *r)
{
	if (!r)
		return;
	redisReaderFree(r->hiredis);
	free(r);
}

int redis_reader_feed(struct redis_reader *r, const void *bytes, size_t len, struct err *e)
{
	size_t unread = r->hiredis->len - r->hiredis->pos;

	if (unread + len > r->max_bytes)
		return err_set(e, -EMSGSIZE, "a reply of more than %zu bytes", r->max_bytes);
	if (redisReaderFeed(r->hiredis, bytes, len) != REDIS_OK)
		return err_set(e, r->hiredis->err == REDIS_ERR_OOM ? -ENOMEM : -EPROTO, "%s",
			       r->hiredis->errstr);
	return 0;
}

int redis_reader_next(struct redis_reader *r, struct redisReply **ret_reply, struct err *e)
{
	void *reply = NULL;

	if (redisReaderGetReply(r->hiredis, &reply) != REDIS_OK)
		return err_set(e, -EPROTO, "%s",
			       r->hiredis->err == REDIS_ERR_OOM ? "a reply that was not asked for"
								: r->hiredis->errstr);
	if (!reply)
		return 0;
	*ret_reply = reply;
	return 1;
}
