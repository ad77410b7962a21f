/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What a store does under load: durable inserts, and whole cycles of insert, claim and finish, in a
 * closed loop with a number of requests outstanding; at PostgreSQL also inserts with a note in the
 * outbox, which is removed in batches, as a publisher does.
 *
 *	store_bench URL [OUTSTANDING [SECONDS [CODE_BYTES]]]
 *
 * The store is filled, so use a new one. Prints one line per load: rate, and the time from a
 * request to its done (p50, p99, p99.9, worst) in milliseconds.
 */

#include "base/clock.h"
#include "base/str.h"
#include "base/url.h"
#include "store/outbox.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

enum { CLIENTS_MAX = 256, SAMPLES_MAX = 4 * 1024 * 1024, NOTED_MAX = 8192, FLUSH_MS = 20 };

enum load { LOAD_INSERT, LOAD_CYCLE, LOAD_OUTBOX, _LOAD_MAX };

struct client {
	struct bench *bench;
	struct store_insert insert;
	struct store_claim claim;
	struct store_finish finish;
	struct task_spec spec;
	struct task_file file;
	struct task_run run;
	int64_t asked_us;
};

struct bench {
	struct store *store;
	enum load load;
	int64_t end_us;
	size_t running;
	uint64_t rounds;
	struct client clients[CLIENTS_MAX];
	struct task_result result;
	struct task_run_result run_result;
	size_t n_samples;
	uint32_t *samples;
	uv_timer_t flush; /* LOAD_OUTBOX */
	struct store_outbox_done done;
	bool flushing;
	struct uuid noted[NOTED_MAX], doing[NOTED_MAX];
	size_t n_noted;
};

static void begin(struct client *c);

static void check(int code, const char *what)
{
	if (code == 0)
		return;
	(void)fprintf(stderr, "%s failed: %s\n", what, err_text(code));
	abort();
}

static void sample(struct client *c)
{
	struct bench *b = c->bench;

	if (b->n_samples < SAMPLES_MAX)
		b->samples[b->n_samples++] = (uint32_t)(clock_monotonic_us() - c->asked_us);
	c->asked_us = clock_monotonic_us();
}

static void next(struct client *c)
{
	c->bench->rounds++;
	if (clock_monotonic_us() < c->bench->end_us)
		begin(c);
	else
		c->bench->running--;
}

static void on_finished(struct store_req *req, int code)
{
	struct client *c = req->ctx;

	check(code, "finish");
	sample(c);
	next(c);
}

static void on_claimed(struct store_req *req, int code)
{
	struct client *c = req->ctx;

	check(code, "claim");
	sample(c);
	c->finish = (struct store_finish){
		.req = {.done = on_finished, .ctx = c},
		.id = c->spec.id,
		.attempt = c->claim.attempt,
		.state = TASK_DONE,
		.started_us = clock_wall_us(),
		.finished_us = clock_wall_us(),
		.result = &c->bench->result,
	};
	store_finish(c->bench->store, &c->finish);
}

/* ---- the outbox, emptied as a publisher does ---- */

static void on_outbox_done(struct store_req *req, int code)
{
	struct bench *b = req->ctx;

	check(code, "outbox_done");
	b->flushing = false;
}

static void on_flush(uv_timer_t *timer)
{
	struct bench *b = timer->data;

	if (b->flushing || !b->n_noted)
		return;
	memcpy(b->doing, b->noted, b->n_noted * sizeof b->noted[0]);
	b->done = (struct store_outbox_done){
		.req = {.done = on_outbox_done, .ctx = b}, .ids = b->doing, .n = b->n_noted};
	b->n_noted = 0;
	b->flushing = true;
	store_outbox_done(b->store, &b->done);
}

static void note(struct bench *b, const struct uuid *id)
{
	if (b->n_noted == NOTED_MAX)
		check(-ENOBUFS, "outbox_done is too slow, which");
	b->noted[b->n_noted++] = *id;
}

/* ---- the loads ---- */

static void on_inserted(struct store_req *req, int code)
{
	struct client *c = req->ctx;

	check(code, "insert");
	sample(c);
	if (c->bench->load == LOAD_OUTBOX)
		note(c->bench, &c->spec.id);
	if (c->bench->load != LOAD_CYCLE) {
		next(c);
		return;
	}
	c->claim = (struct store_claim){
		.req = {.done = on_claimed, .ctx = c},
		.id = c->spec.id,
		.owner = 1,
		.now_us = clock_wall_us(),
		.lease_until_us = clock_wall_us() + 30000000,
	};
	store_claim(c->bench->store, &c->claim);
}

static void begin(struct client *c)
{
	uuid7_new(&c->spec.id);
	c->spec.created_us = clock_wall_us();
	c->spec.deadline_us = c->spec.created_us + 60000000;
	c->asked_us = clock_monotonic_us();
	c->insert = (struct store_insert){
		.req = {.done = on_inserted, .ctx = c},
		.spec = &c->spec,
	};
	store_insert(c->bench->store, &c->insert);
}

static int by_size(const void *a, const void *b)
{
	uint32_t x, y;

	memcpy(&x, a, sizeof x);
	memcpy(&y, b, sizeof y);
	return (x > y) - (x < y);
}

static double cpu_seconds(void)
{
	struct rusage u;

	(void)getrusage(RUSAGE_SELF, &u);
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
	       (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static double percentile(const struct bench *b, double p)
{
	return (double)b->samples[(size_t)((double)(b->n_samples - 1) * p)] / 1e3;
}

static void measure(struct bench *b, uv_loop_t *loop, enum load load, size_t clients,
		    uint64_t seconds)
{
	static const char *const names[_LOAD_MAX] = {"insert", "insert+claim+finish",
						     "insert+outbox+done"};
	int64_t start_us = clock_monotonic_us();
	double cpu = cpu_seconds(), took;

	b->load = load;
	b->rounds = b->n_samples = 0;
	b->end_us = start_us + (int64_t)seconds * 1000000;
	b->running = clients;
	for (size_t i = 0; i < clients; i++)
		begin(&b->clients[i]);
	if (load == LOAD_OUTBOX)
		(void)uv_timer_start(&b->flush, on_flush, FLUSH_MS, FLUSH_MS);
	while (b->running || b->n_noted || b->flushing)
		(void)uv_run(loop, UV_RUN_ONCE);
	(void)uv_timer_stop(&b->flush);
	took = (double)(clock_monotonic_us() - start_us) / 1e6;
	cpu = cpu_seconds() - cpu;
	qsort(b->samples, b->n_samples, sizeof *b->samples, by_size);
	(void)printf("%-20s outstanding %3zu: %7.0f/s, cpu %.0f us each;"
		     " wait p50 %.2f p99 %.2f p99.9 %.2f worst %.1f ms\n",
		     names[load], clients, (double)b->rounds / took, cpu / (double)b->rounds * 1e6,
		     percentile(b, 0.5), percentile(b, 0.99), percentile(b, 0.999),
		     percentile(b, 1));
}

static void make_clients(struct bench *b, char *code, size_t code_len)
{
	static char tenant[] = "default", language[] = "python", entry[] = "main.py";
	static char output[] = "hello, world\n";

	for (size_t i = 0; i < CLIENTS_MAX; i++) {
		struct client *c = &b->clients[i];

		c->bench = b;
		c->file = (struct task_file){entry, {code, code_len}};
		task_limits_unset(&c->run.limits);
		c->spec = (struct task_spec){
			.tenant = tenant,
			.class = TASK_CLASS_NORMAL,
			.program = {.language = language,
				    .entry = entry,
				    .files = &c->file,
				    .n_files = 1},
			.runs = &c->run,
			.n_runs = 1,
		};
		task_limits_unset(&c->spec.program.compile_limits);
	}
	b->run_result = (struct task_run_result){
		.outcome = TASK_OUTCOME_OK,
		.output = {{output, sizeof output - 1}, {0}},
	};
	b->result = (struct task_result){
		.outcome = TASK_OUTCOME_OK, .ran = true, .runs = &b->run_result, .n_runs = 1};
}

static void on_closed(void *ctx)
{
	*(bool *)ctx = true;
}

static void close_store(struct bench *b, uv_loop_t *loop)
{
	bool closed = false;

	store_close(b->store, on_closed, &closed);
	while (!closed)
		(void)uv_run(loop, UV_RUN_ONCE);
}

int main(int argc, char **argv)
{
	struct store_config cfg = {.url = argc > 1 ? argv[1] : "", .busy_timeout_ms = 1000};
	uint64_t numbers[] = {16, 3, 500};
	struct bench *b = calloc(1, sizeof *b);
	uv_loop_t *loop = uv_default_loop();
	struct err e = {""};
	char *code;

	for (int i = 2; i < argc && i < 5; i++)
		if (str_to_u64(argv[i], 1, i == 2 ? CLIENTS_MAX : 1u << 20, &numbers[i - 2]) < 0)
			argc = 0;
	if (argc < 2 || argc > 5 || !b) {
		(void)fprintf(stderr, "usage: store_bench URL [OUTSTANDING [SECONDS [BYTES]]]\n");
		return 2;
	}
	if ((url_scheme_is(cfg.url, "postgresql", NULL) &&
	     store_migrate(cfg.url, NULL, NULL, &e) < 0) ||
	    store_open(loop, &cfg, &b->store, &e) < 0) {
		(void)fprintf(stderr, "%s\n", e.msg);
		return 1;
	}
	code = malloc(numbers[2]);
	b->samples = malloc(SAMPLES_MAX * sizeof *b->samples);
	if (!code || !b->samples)
		return 1;
	memset(code, 'x', numbers[2]);
	make_clients(b, code, numbers[2]);
	(void)uv_timer_init(loop, &b->flush);
	b->flush.data = b;
	for (int load = 0; load < LOAD_OUTBOX; load++)
		measure(b, loop, (enum load)load, (size_t)numbers[0], numbers[1]);
	close_store(b, loop);
	cfg.outbox = true;
	if (store_open(loop, &cfg, &b->store, &e) == 0) {
		if (store_has_outbox(b->store))
			measure(b, loop, LOAD_OUTBOX, (size_t)numbers[0], numbers[1]);
		close_store(b, loop);
	}
	free(code);
	free(b->samples);
	free(b);
	return 0;
}
