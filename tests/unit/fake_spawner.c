/* SPDX-License-Identifier: Apache-2.0 */
#include "fake_spawner.h"

#include "sandbox/nursery.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

struct sandbox_client *fake_spawner_new(void)
{
	struct sandbox_client *c = calloc(1, sizeof(*c));

	if (!c || pipe2(c->pipe, O_CLOEXEC | O_NONBLOCK) < 0)
		abort();
	c->end.outcome = SANDBOX_EXITED;
	for (unsigned box = 0; box < SANDBOX_BOXES_MAX; box++) {
		for (unsigned i = 0; i < SANDBOX_TARGET_FD_MAX; i++)
			c->fds[box][i] = -1;
	}
	return c;
}

/* As the end of the last process of a box does. */
static void close_fds(struct sandbox_client *c, unsigned box)
{
	for (unsigned i = 0; i < SANDBOX_TARGET_FD_MAX; i++) {
		if (c->fds[box][i] >= 0)
			(void)close(c->fds[box][i]);
		c->fds[box][i] = -1;
	}
}

void fake_spawner_free(struct sandbox_client *c)
{
	for (unsigned box = 0; box < SANDBOX_BOXES_MAX; box++)
		close_fds(c, box);
	(void)close(c->pipe[0]);
	(void)close(c->pipe[1]);
	free(c);
}

static void emit(struct sandbox_client *c, unsigned box, uint16_t type, union sandbox_event ev)
{
	assert(c->count < FAKE_EVENTS_MAX);
	ev.h = (struct sandbox_header){
		.type = type, .box = (uint16_t)box, .cookie = c->cookies[box]};
	c->events[(c->first + c->count++) % FAKE_EVENTS_MAX] = ev;
	if (write(c->pipe[1], "", 1) != 1)
		abort();
}

void fake_prepared(struct sandbox_client *c, unsigned box)
{
	emit(c, box, SANDBOX_EVENT_PREPARED, (union sandbox_event){0});
}

void fake_exited(struct sandbox_client *c, unsigned box, const struct sandbox_event_exited *x)
{
	emit(c, box, SANDBOX_EVENT_EXITED, (union sandbox_event){.exited = *x});
}

void fake_released(struct sandbox_client *c, unsigned box)
{
	close_fds(c, box);
	emit(c, box, SANDBOX_EVENT_RELEASED, (union sandbox_event){0});
}

void fake_lost(struct sandbox_client *c)
{
	c->lost = true;
	if (write(c->pipe[1], "", 1) != 1)
		abort();
}

int sandbox_client_fd(const struct sandbox_client *c)
{
	return c->pipe[0];
}

int sandbox_client_prepare(struct sandbox_client *c, unsigned int box, uint64_t cookie,
			   const struct sandbox_limits *expected, struct err *e)
{
	(void)expected;
	c->prepares++;
	if (c->prepare_result < 0)
		return err_set(e, c->prepare_result, "the fake cannot prepare");
	c->cookies[box] = cookie;
	if (c->prepare_fails) {
		fake_exited(c, box,
			    &(struct sandbox_event_exited){.outcome = SANDBOX_FAILED,
							   .step = SANDBOX_STEP_CLONE,
							   .error = EAGAIN});
		fake_released(c, box);
	} else if (!c->quiet) {
		fake_prepared(c, box);
	}
	return 0;
}

int sandbox_client_start(struct sandbox_client *c, unsigned int box, uint64_t cookie,
			 const struct sandbox_task *task, struct err *e)
{
	assert(cookie == c->cookies[box]);
	assert(fcntl(task->job_fd, F_GETFD) >= 0);
	for (size_t i = 0; i < task->map_count; i++)
		assert(fcntl(task->map_fds[i], F_GETFD) >= 0);
	for (size_t i = 0; i < task->input_count; i++)
		assert(fcntl(task->input_fds[i], F_GETFD) >= 0);
	c->starts++;
	c->last_box = box;
	if (c->start_result < 0)
		return err_set(e, c->start_result, "the fake cannot start");
	if (c->refuse_start) {
		union sandbox_event ev = {.error.request = SANDBOX_START};

		(void)snprintf(ev.error.message, sizeof(ev.error.message), "refused");
		emit(c, box, SANDBOX_REPLY_ERROR, ev);
	} else if (c->stands_by) {
		for (size_t i = 0; i < task->map_count; i++)
			c->fds[box][task->map_targets[i]] =
				fcntl(task->map_fds[i], F_DUPFD_CLOEXEC, 0);
		emit(c, box, SANDBOX_EVENT_STARTED, (union sandbox_event){0});
	} else if (!c->quiet) {
		fake_exited(c, box, &c->end);
		fake_released(c, box);
	}
	return 0;
}

int sandbox_client_limit(struct sandbox_client *c, unsigned int box, uint64_t cookie,
			 const struct sandbox_limits *limits, struct err *e)
{
	(void)e;
	(void)limits;
	assert(cookie == c->cookies[box]);
	c->limits++;
	if (c->stands_by)
		emit(c, box, SANDBOX_EVENT_STARTED, (union sandbox_event){0});
	return 0;
}

int sandbox_client_kill(struct sandbox_client *c, unsigned int box, uint64_t cookie,
			enum sandbox_limit reason, struct err *e)
{
	(void)e;
	(void)reason;
	assert(cookie == c->cookies[box]);
	c->kills++;
	if (c->quiet || c->stands_by) {
		fake_exited(c, box,
			    &(struct sandbox_event_exited){.outcome = SANDBOX_LIMITED,
							   .limit = reason});
		fake_released(c, box);
	}
	return 0;
}

int sandbox_client_release(struct sandbox_client *c, unsigned int box, uint64_t cookie,
			   struct err *e)
{
	(void)e;
	assert(cookie == c->cookies[box]);
	c->releases++;
	fake_released(c, box);
	return 0;
}

int sandbox_client_receive(struct sandbox_client *c, union sandbox_event *ret_event, struct err *e)
{
	char byte;

	if (c->count == 0)
		return c->lost ? err_set(e, -EPIPE, "the fake is gone") : 0;
	if (read(c->pipe[0], &byte, 1) != 1)
		abort();
	*ret_event = c->events[c->first];
	c->first = (c->first + 1) % FAKE_EVENTS_MAX;
	c->count--;
	return 1;
}

void sandbox_client_end(struct sandbox_client *c)
{
	fake_lost(c);
}

void sandbox_client_free(struct sandbox_client *c)
{
	if (c)
		fake_spawner_free(c);
}

/* ---- a nursery without a place: nothing is forked ---- */

unsigned int nursery_places(const struct nursery *n)
{
	(void)n;
	return 0;
}

unsigned int nursery_boxes(const struct nursery *n)
{
	(void)n;
	return 0;
}

int nursery_start(struct nursery *n, unsigned int place, const char *const *argv,
		  const char *const *envp, struct sandbox_client **ret_client, struct err *e)
{
	(void)n;
	(void)place;
	(void)argv;
	(void)envp;
	(void)ret_client;
	return err_set(e, -ENOENT, "there is no place");
}
