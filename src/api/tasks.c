/* SPDX-License-Identifier: Apache-2.0 */
#include "api/private.h"
#include "api/render.h"
#include "base/str.h"
#include "observe/metrics.h"

#include <stdlib.h>

/* LIST_MAX is named in a message below. */
enum { LIST_DEFAULT = 50, LIST_MAX = 200, LIST_BODY_MAX = 1024 * 1024 };

/* ---- GET /tasks ---- */

struct listing {
	struct api *api;
	struct http_request *request;
	struct store_list list;
	size_t limit;
};

static void write_page(struct listing *l, struct buf *body)
{
	size_t n = l->list.n < l->limit ? l->list.n : l->limit;
	char cursor[UUID_TEXT_MAX];
	struct json_writer w;

	json_writer_init(&w, body);
	json_write_begin_object(&w);
	json_write_name(&w, "tasks");
	json_write_begin_array(&w);
	for (size_t i = 0; i < n; i++)
		render_summary(&w, l->list.tasks[i]);
	json_write_end_array(&w);
	if (l->list.n > n)
		uuid_format(&l->list.tasks[n - 1]->spec.id, cursor);
	json_write_text_field(&w, "next_cursor", l->list.n > n ? cursor : NULL);
	json_write_end_object(&w);
	(void)buf_append_char(body, '\n');
}

static void on_listed(struct store_req *req, int code)
{
	struct listing *l = req->ctx;
	struct api *a = l->api;
	struct buf body;

	if (code < 0) {
		api_reply_failure(a, l->request, code, "list the tasks");
	} else {
		buf_init(&body, LIST_BODY_MAX);
		write_page(l, &body);
		http_reply(l->request, 200, "application/json", &body);
		buf_fini(&body);
		for (size_t i = 0; i < l->list.n; i++)
			task_free(l->list.tasks[i]);
		free(l->list.tasks);
	}
	free(l);
	api_end_operation(a);
}

static int refuse(struct http_request *r, const char *detail)
{
	problem_send(r, PROBLEM_INVALID_PARAMETER, "%s", detail);
	return -EINVAL;
}

static int read_list_query(struct http_request *r, struct listing *l)
{
	const char *limit = http_query(r, "limit"), *cursor = http_query(r, "cursor");
	const char *status = http_query(r, "status"), *language = http_query(r, "language");
	enum task_state state = TASK_QUEUED;
	const struct language *known;
	uint64_t number = LIST_DEFAULT;

	if (limit && str_to_u64(limit, 1, LIST_MAX, &number) < 0)
		return refuse(r, "\"limit\" must be a whole number from 1 to 200");
	if (cursor && uuid_parse(cursor, &l->list.before) < 0)
		return refuse(r, "\"cursor\" must be a \"next_cursor\" of this list");
	if (status && task_state_parse(status, &state) < 0)
		return refuse(r, "\"status\" must be queued, running, done, cancelled, expired or "
				 "failed");
	known = language ? language_find(l->api->cfg.languages, language) : NULL;
	l->limit = (size_t)number;
	l->list.has_before = cursor != NULL;
	l->list.state = status ? (int)state : -1;
	l->list.language = known ? known->name : language;
	l->list.tenant = http_tenant(r);
	l->list.limit = l->limit + 1; /* whether there is more */
	return 0;
}

void tasks_handle_list(struct http_request *r, void *ctx)
{
	struct listing *l = calloc(1, sizeof *l);

	if (!l) {
		api_reply_failure(ctx, r, -ENOMEM, "list the tasks");
		return;
	}
	l->api = ctx;
	l->request = r;
	if (read_list_query(r, l) < 0) {
		free(l);
		return;
	}
	l->list.req.done = on_listed;
	l->list.req.ctx = l;
	api_begin_operation(l->api);
	store_list(l->api->cfg.store, &l->list);
}

/* ---- DELETE /tasks/{task_id} ---- */

struct cancellation {
	struct api *api;
	struct http_request *request;
	struct store_cancel_task cancel;
	struct store_get get;
};

static void end(struct cancellation *c)
{
	struct api *a = c->api;

	free(c);
	api_end_operation(a);
}

static void refuse_final(struct cancellation *c)
{
	problem_send(c->request, PROBLEM_ALREADY_FINAL, "the task is %s already",
		     task_state_name(c->cancel.state));
}

/* Where it has come to its end by itself meanwhile, nothing was cancelled. */
static void answer_cancelled(struct cancellation *c, const struct task *t)
{
	if (task_state_is_final(t->state) && t->state != TASK_CANCELLED) {
		c->cancel.state = t->state;
		refuse_final(c);
		return;
	}
	if (c->cancel.state == TASK_CANCELLED)
		metric_add(METRIC_TASKS_FINISHED, 1, t->spec.program.language,
			   task_state_name(TASK_CANCELLED));
	api_reply_task(c->api, c->request, 200, t);
}

static void on_read(struct store_req *req, int code)
{
	struct cancellation *c = req->ctx;
	AUTO(task_free) struct task *t = NULL;

	if (code == -ENOENT) {
		problem_send(c->request, PROBLEM_UNKNOWN_TASK, "there is no such task");
	} else if (code < 0) {
		api_reply_failure(c->api, c->request, code, "read the task");
	} else {
		t = TAKE_PTR(c->get.task);
		answer_cancelled(c, t);
	}
	end(c);
}

/* Those who wait hear of a task that is final now; its runner, of one that is to end. */
static void tell(struct cancellation *c)
{
	const uint8_t state = TASK_CANCELLED;

	if (c->cancel.state == TASK_CANCELLED)
		bus_publish(c->api->cfg.bus, BUS_FINISHED, &c->cancel.id, &state, sizeof state);
	else
		bus_publish(c->api->cfg.bus, BUS_CANCEL, &c->cancel.id, NULL, 0);
}

static void on_cancelled(struct store_req *req, int code)
{
	struct cancellation *c = req->ctx;

	if (code == 0) {
		tell(c);
		c->get = (struct store_get){
			.req = {.done = on_read, .ctx = c},
			.id = c->cancel.id,
			.tenant = http_tenant(c->request),
			.parts = STORE_RESULT,
		};
		store_get(c->api->cfg.store, &c->get);
		return;
	}
	if (code == -ENOENT)
		problem_send(c->request, PROBLEM_UNKNOWN_TASK, "there is no such task");
	else if (code == -EALREADY)
		refuse_final(c);
	else
		api_reply_failure(c->api, c->request, code, "cancel the task");
	end(c);
}

void tasks_handle_cancel(struct http_request *r, void *ctx)
{
	struct cancellation *c;
	struct uuid id;

	if (api_read_id(r, &id) < 0)
		return;
	c = calloc(1, sizeof *c);
	if (!c) {
		api_reply_failure(ctx, r, -ENOMEM, "cancel the task");
		return;
	}
	c->api = ctx;
	c->request = r;
	c->cancel = (struct store_cancel_task){
		.req = {.done = on_cancelled, .ctx = c},
		.id = id,
		.tenant = http_tenant(r),
		.now_us = store_now_us(c->api->cfg.store),
	};
	api_begin_operation(c->api);
	store_cancel_task(c->api->cfg.store, &c->cancel);
}
