/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A scheduler over a real store, queue, cache and bus, with a runner that is played by the test.
 */

#include "base/clock.h"
#include "scheduler/scheduler.h"
#include "unit.h"
#include "wire/codec.h"
#include "wire/conn.h"

#include <stdbool.h>

enum { FRAMES_MAX = 64, TURNS_MAX = 5000 };

struct fake_runner {
	struct wire_conn *conn;
	Kiln__Frame *frames[FRAMES_MAX]; /* what the scheduler sent, in order */
	size_t n;
	size_t read; /* how many of them the test has looked at */
	bool closed;
	bool lost; /* the scheduler said so */
	char name[32];
};

struct world {
	uv_loop_t loop;
	char path[64];
	struct store *store;
	struct queue *queue;
	struct publisher *publisher;
	struct cache *cache;
	struct bus *bus;
	struct language_registry *languages;
	struct scheduler *scheduler;
	bool scheduler_closed;
	int finished_events;
};

extern const struct wire_conn_ops runner_ops; /* ctx: the struct fake_runner */

void on_lost(void *ctx, const char *pod, const char *reason);
void send_frame(struct fake_runner *r, Kiln__Frame__KindCase kind, void *message);
void runner_join(struct world *w, struct fake_runner *r, const char *name, unsigned slots);
void runner_leave(struct fake_runner *r);
void turn(struct world *w);
const Kiln__Frame *expect_frame(struct world *w, struct fake_runner *r, Kiln__Frame__KindCase kind);
void accept_task(struct fake_runner *r, const struct uuid *id);
void send_output(struct fake_runner *r, const struct uuid *id, uint64_t sequence, const char *text);
void send_run_done(struct fake_runner *r, const struct uuid *id, enum task_outcome outcome);
void send_done(struct fake_runner *r, const struct uuid *id, bool cancelled, const char *error);
void open_scheduler_of_at_most(struct world *w, size_t tenant_running_max);
void open_scheduler(struct world *w);
int world_setup(void **state);
void wait_flag(struct world *w, const bool *flag);
void close_scheduler(struct world *w);
int world_teardown(void **state);
struct uuid store_task(struct world *w, const char *tenant); /* not published */
void publish_task(struct world *w, const struct uuid *id, const char *tenant);
struct uuid submit_for(struct world *w, const char *tenant);
struct uuid submit(struct world *w);
struct task *read_task(struct world *w, const struct uuid *id);
void claim_for(struct world *w, const struct uuid *id, uint64_t owner);
void end_every_lease(struct world *w); /* as another process would that takes this one for dead */
struct task *wait_state(struct world *w, const struct uuid *id, enum task_state state);
enum task_state cancel_task(struct world *w, const struct uuid *id);
void expect_lost(struct world *w, struct fake_runner *r);
