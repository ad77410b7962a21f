/* SPDX-License-Identifier: Apache-2.0 */
#include "rabbitmq_faults.h"

#include "base/clock.h"
#include "base/str.h"
#include "cut_proxy.h"
#include "loop_fixture.h"
#include "queue/inspect.h"
#include "queue/rabbitmq-private.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HELD_MAX = 4096, WAIT_MS = 20000 };

struct fixture {
	uv_loop_t loop;
	struct queue *queue;
	struct cut_proxy *proxy;
	bool acks; /* what comes */
	struct queue_delivery *held[HELD_MAX];
	size_t n_held, n_delivered;
	struct queue_message last;
	int n_lost, n_back;
	char lost[ERR_MSG_MAX];
	bool closed;
};

static void on_delivered(void *ctx, struct queue_delivery *d)
{
	struct fixture *f = ctx;

	f->n_delivered++;
	f->last = d->message;
	if (f->acks) {
		queue_ack(f->queue, d);
		return;
	}
	assert_true(f->n_held < HELD_MAX);
	f->held[f->n_held++] = d;
}

static void on_state(void *ctx, int code, const char *message)
{
	struct fixture *f = ctx;

	if (code == 0) {
		f->n_back++;
		return;
	}
	assert_int_equal(code, -ENOTCONN);
	(void)str_copy(f->lost, sizeof f->lost, message);
	f->n_lost++;
	f->n_held = 0;
}

static const struct queue_consumer_ops consumer = {.delivered = on_delivered, .state = on_state};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof *f);

	assert_non_null(f);
	assert_int_equal(uv_loop_init(&f->loop), 0);
	*state = f;
	return 0;
}

static int try_open(struct fixture *f, const char *url, struct err *e)
{
	const struct queue_config cfg = {.url = url, .max_tasks = 100000};

	return queue_open(&f->loop, &cfg, &f->queue, e);
}

static void open_at(struct fixture *f, const char *url)
{
	struct err e = {""};

	if (try_open(f, url, &e) < 0)
		fail_msg("%s", e.msg);
	queue_set_consumer(f->queue, &consumer, f);
}

static void close_queue(struct fixture *f)
{
	if (!f->queue)
		return;
	f->closed = false;
	queue_close(f->queue, loop_on_closed, &f->closed);
	loop_run_until(&f->loop, &f->closed);
	f->queue = NULL;
	f->n_held = 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	close_queue(f);
	if (f->proxy)
		cut_proxy_free(f->proxy);
	loop_end(&f->loop);
	free(f);
	rabbitmq_drop();
	return 0;
}

/* ---- helpers ---- */

#define RUN_UNTIL(f, condition)                                                                    \
	do {                                                                                       \
		int64_t end_us_ = clock_monotonic_us() + WAIT_MS * 1000;                           \
		while (!(condition)) {                                                             \
			(void)uv_run(&(f)->loop, UV_RUN_NOWAIT);                                   \
			if (clock_monotonic_us() > end_us_)                                        \
				fail_msg("waited too long for %s", #condition);                    \
		}                                                                                  \
	} while (0)

static void run_for(struct fixture *f, int ms)
{
	int64_t end_us = clock_monotonic_us() + ms * 1000;

	while (clock_monotonic_us() < end_us)
		(void)uv_run(&f->loop, UV_RUN_NOWAIT);
}

struct publishing {
	struct queue_publish r;
	bool done;
	int code;
};

static void on_published(struct queue_publish *r, int code)
{
	struct publishing *p = r->ctx;

	p->done = true;
	p->code = code;
}

static void start_publish(struct fixture *f, struct publishing *p)
{
	*p = (struct publishing){.r = {.done = on_published, .ctx = p}};
	uuid7_new(&p->r.message.id);
	p->r.message.class = TASK_CLASS_NORMAL;
	p->r.message.enqueued_us = clock_wall_us();
	(void)str_copy(p->r.message.language, TASK_LANGUAGE_MAX, "python");
	(void)str_copy(p->r.message.tenant, TASK_TENANT_MAX, "acme");
	queue_publish(f->queue, &p->r);
}

static int publish(struct fixture *f)
{
	struct publishing p;

	start_publish(f, &p);
	loop_run_until(&f->loop, &p.done);
	return p.code;
}

static void consume(struct fixture *f, size_t prefetch)
{
	assert_int_equal(queue_consume(f->queue, "python", prefetch, NULL), 0);
}

static size_t ready(struct fixture *f)
{
	struct queue_depth d;

	queue_get_depth(f->queue, "python", TASK_CLASS_NORMAL, &d);
	return d.ready;
}

static void assert_mentions(const char *message, const char *what)
{
	if (!strstr(message, what))
		fail_msg("\"%s\" does not mention \"%s\"", message, what);
}

/* Through a proxy, with further options of the URL. */
static void open_through_proxy(struct fixture *f, const char *options)
{
	struct rabbit_url u;
	char url[1024];

	(void)rabbit_url_parse(rabbitmq_fresh() + strlen("amqp:"), &u, NULL);
	f->proxy = cut_proxy_new((uint16_t)u.hosts[0].port);
	(void)snprintf(url, sizeof url, "amqp://%s:%s@127.0.0.1:%u/%s?prefix=%s%s", u.user,
		       u.password, cut_proxy_port(f->proxy), str_eq(u.vhost, "/") ? "" : u.vhost,
		       u.prefix, options);
	open_at(f, url);
}

/* ---- what a person got wrong ---- */

static void wrong_url_is_refused(void **state)
{
	static const struct {
		const char *url, *mentions;
	} bad[] = {
		{"amqp:", "amqp://"},
		{"amqp://", "host"},
		{"amqp://h,,h", "host"},
		{"amqp://h:0", "port"},
		{"amqp://h:70000", "port"},
		{"amqp://h:x", "port"},
		{"amqp://[::1", "[ADDRESS]"},
		{"amqp://u%zz@h", "user"},
		{"amqp://h/%0", "virtual host"},
		{"amqp://h?prefix=", "prefix"},
		{"amqp://h?prefix=a.b", "prefix"},
		{"amqp://h?heartbeat=0", "heartbeat"},
		{"amqp://h?colour=red", "colour"},
		{"amqp://h?colour", "NAME=VALUE"},
		{"amqp://h,h,h,h,h,h,h,h,h", "hosts"},
		{"amqps://h", "no queue"},
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct err e = {""};

		assert_int_equal(try_open(f, bad[i].url, &e), -EINVAL);
		assert_mentions(e.msg, bad[i].mentions);
		assert_null(f->queue);
	}
}

static void url_is_read_as_written(void **state)
{
	struct rabbit_url u;

	(void)state;
	assert_int_equal(rabbit_url_parse("//us%40er:p%3Aw@one:1,[::2]:3,four/my%2fhost?prefix=t&"
					  "heartbeat=30",
					  &u, NULL),
			 0);
	assert_string_equal(u.user, "us@er");
	assert_string_equal(u.password, "p:w");
	assert_string_equal(u.vhost, "my/host");
	assert_string_equal(u.prefix, "t");
	assert_int_equal(u.heartbeat_s, 30);
	assert_int_equal(u.n_hosts, 3);
	assert_string_equal(u.hosts[1].name, "::2");
	assert_int_equal(u.hosts[1].port, 3);
	assert_string_equal(u.hosts[2].name, "four");
	assert_int_equal(u.hosts[2].port, 5672);
	assert_int_equal(rabbit_url_parse("//h/", &u, NULL), 0);
	assert_string_equal(u.vhost, "/");
}

static void refused_as(struct fixture *f, const char *user, const char *password, const char *vhost,
		       int code, const char *mentions)
{
	struct rabbit_url u;
	struct err e = {""};
	char url[1024];

	(void)rabbit_url_parse(rabbitmq_fresh() + strlen("amqp:"), &u, NULL);
	(void)snprintf(url, sizeof url, "amqp://%s:%s@%s:%d/%s?prefix=%s", user ? user : u.user,
		       password ? password : u.password, u.hosts[0].name, u.hosts[0].port, vhost,
		       u.prefix);
	assert_int_equal(try_open(f, url, &e), code);
	assert_mentions(e.msg, mentions);
	assert_mentions(e.msg, u.hosts[0].name);
	assert_null(strstr(e.msg, "not-the-password"));
}

static void wrong_password_is_refused(void **state)
{
	refused_as(*state, NULL, "not-the-password", "", -EACCES, "password");
	refused_as(*state, "nobody-of-that-name", "x", "", -EACCES, "nobody-of-that-name");
}

static void unknown_vhost_is_refused(void **state)
{
	refused_as(*state, NULL, NULL, "no-such-vhost", -ENOENT, "no-such-vhost");
}

static void nobody_there_is_tried_again(void **state)
{
	struct fixture *f = *state;
	struct err e = {""};

	/* A port that nobody listens on: that of a proxy that is gone. */
	f->proxy = cut_proxy_new(1);
	(void)rabbitmq_fresh();
	{
		char url[128];

		(void)snprintf(url, sizeof url, "amqp://127.0.0.1:%u/", cut_proxy_port(f->proxy));
		cut_proxy_free(f->proxy);
		f->proxy = NULL;
		open_at(f, url);
	}
	assert_int_equal(queue_check(f->queue, &e), -ENOTCONN);
	assert_mentions(e.msg, "127.0.0.1:");
	assert_mentions(e.msg, "refused");
	assert_int_equal(queue_reserve(f->queue, "python", TASK_CLASS_NORMAL), -ENOTCONN);
	assert_int_equal(publish(f), -EAGAIN);
	RUN_UNTIL(f, f->n_lost == 1);
	assert_mentions(f->lost, "refused");
}

static void second_host_stands_in(void **state)
{
	struct fixture *f = *state;
	struct rabbit_url u;
	char url[1024];

	(void)rabbit_url_parse(rabbitmq_fresh() + strlen("amqp:"), &u, NULL);
	(void)snprintf(url, sizeof url, "amqp://%s:%s@127.0.0.1:1,%s:%d/?prefix=%s", u.user,
		       u.password, u.hosts[0].name, u.hosts[0].port, u.prefix);
	open_at(f, url);
	assert_int_equal(queue_check(f->queue, NULL), 0);
	assert_int_equal(publish(f), 0);
}

/* Declares the fixture's queue in a way that Kiln does not. */
static struct rabbit_conn declare_otherwise(const char *url, char name[static RABBIT_NAME_MAX])
{
	struct rabbit_url u;
	struct rabbit_conn c = rabbitmq_side(url, &u);

	rabbit_name(&u, "python.normal", name);
	(void)amqp_queue_declare(c.c, 1, amqp_cstring_bytes(name), 0, 1, 0, 0, amqp_empty_table);
	assert_int_equal(rabbit_reply(&c, 1, NULL), 0);
	return c;
}

static void delete_queue(struct rabbit_conn *c, const char *name)
{
	(void)amqp_queue_delete(c->c, 1, amqp_cstring_bytes(name), 0, 0);
	rabbit_disconnect(c, true);
}

static void queue_of_other_arguments_is_named(void **state)
{
	struct fixture *f = *state;
	const char *url = rabbitmq_fresh();
	char name[RABBIT_NAME_MAX];
	struct rabbit_conn c = declare_otherwise(url, name);
	struct err e = {""};

	open_at(f, url);
	assert_int_equal(publish(f), -EAGAIN);
	/* The other queues are of use. */
	assert_int_equal(queue_check(f->queue, &e), -EAGAIN);
	assert_mentions(e.msg, name);
	assert_mentions(e.msg, "delete");
	/* Once it is gone, all is well without a restart, and without a publish that looks. */
	delete_queue(&c, name);
	RUN_UNTIL(f, queue_check(f->queue, NULL) == 0);
	assert_int_equal(publish(f), 0);
	consume(f, 1);
	RUN_UNTIL(f, f->n_delivered == 1);
}

/* ---- what others may write there ---- */

static void write_raw(struct rabbit_conn *c, const struct rabbit_url *u, const void *body,
		      size_t len, const char *traceparent)
{
	char exchange[RABBIT_NAME_MAX];
	amqp_table_entry_t h = {.key = amqp_cstring_bytes("traceparent"),
				.value = {.kind = AMQP_FIELD_KIND_UTF8,
					  .value = {.bytes = amqp_cstring_bytes(traceparent)}}};
	amqp_basic_properties_t p = {._flags = AMQP_BASIC_HEADERS_FLAG,
				     .headers = {.num_entries = 1, .entries = &h}};

	rabbit_name(u, "tasks", exchange);
	assert_int_equal(
		amqp_basic_publish(c->c, 1, amqp_cstring_bytes(exchange),
				   amqp_cstring_bytes("python.normal"), 0, 0, &p,
				   (amqp_bytes_t){.len = len, .bytes = (void *)(uintptr_t)body}),
		0);
}

static size_t count_of(struct rabbit_conn *c, const struct rabbit_url *u, const char *what)
{
	char name[RABBIT_NAME_MAX];
	const amqp_queue_declare_ok_t *ok;

	rabbit_name(u, what, name);
	ok = amqp_queue_declare(c->c, 1, amqp_cstring_bytes(name), 1, 0, 0, 0, amqp_empty_table);
	assert_non_null(ok);
	return ok->message_count;
}

static void foreign_messages_go_to_the_dead_letters(void **state)
{
	static const char trace[] = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
	static const char id[] = "0198c6a2-7c1e-7e4b-9a55-3b8f2c6d1e70";
	struct fixture *f = *state;
	const char *url = rabbitmq_fresh();
	AUTO_FREE char *large = calloc(1, 300000);
	struct rabbit_conn c;
	struct rabbit_url u;
	char good[512];

	open_at(f, url);
	consume(f, 10);
	assert_int_equal(publish(f), 0);
	RUN_UNTIL(f, f->n_delivered == 1);
	assert_string_equal(f->last.traceparent, "");
	c = rabbitmq_side(url, &u);
	write_raw(&c, &u, "", 0, trace);
	write_raw(&c, &u, "kiln 1\n", 7, trace);
	write_raw(&c, &u, "\0\0\0\0", 4, trace);
	write_raw(&c, &u, large, 300000, trace);
	(void)snprintf(good, sizeof good,
		       "kiln 1\nid %s\nclass normal\nlanguage python\ntenant \nenqueued_us 5\n"
		       "later yes\n",
		       id);
	write_raw(&c, &u, good, strlen(good), trace);
	RUN_UNTIL(f, f->n_delivered == 2);
	assert_string_equal(f->last.traceparent, trace);
	write_raw(&c, &u, good, strlen(good), "not a traceparent");
	RUN_UNTIL(f, f->n_delivered == 3);
	assert_string_equal(f->last.traceparent, "");
	assert_int_equal(f->last.enqueued_us, 5);
	RUN_UNTIL(f, count_of(&c, &u, "dead") == 4);
	assert_int_equal(f->n_lost, 0);
	rabbit_disconnect(&c, true);
}

static void traceparent_travels(void **state)
{
	static const char trace[] = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
	struct publishing p = {.r = {.done = on_published, .ctx = &p}};
	struct fixture *f = *state;

	open_at(f, rabbitmq_fresh());
	uuid7_new(&p.r.message.id);
	(void)str_copy(p.r.message.language, TASK_LANGUAGE_MAX, "python");
	(void)str_copy(p.r.message.traceparent, QUEUE_TRACEPARENT_MAX, trace);
	queue_publish(f->queue, &p.r);
	consume(f, 1);
	RUN_UNTIL(f, f->n_delivered == 1);
	assert_string_equal(f->last.traceparent, trace);
}

static void message_that_cannot_be_carried_is_refused(void **state)
{
	struct publishing p = {.r = {.done = on_published, .ctx = &p}};
	struct fixture *f = *state;

	open_at(f, rabbitmq_fresh());
	(void)str_copy(p.r.message.language, TASK_LANGUAGE_MAX, "python");
	(void)str_copy(p.r.message.tenant, TASK_TENANT_MAX, "two\nlines");
	queue_publish(f->queue, &p.r);
	loop_run_until(&f->loop, &p.done);
	assert_int_equal(p.code, -EINVAL);
	assert_int_equal(publish(f), 0);
}

/* ---- dead letters ---- */

struct letters {
	size_t n;
	struct queue_dead_letter seen[4];
};

static void keep_letter(void *ctx, const struct queue_dead_letter *letter)
{
	struct letters *l = ctx;

	assert_true(l->n < ARRAY_SIZE(l->seen));
	l->seen[l->n++] = *letter;
}

/* Takes the first message and throws it back until the broker has had enough of it. */
static void wear_out(struct rabbit_conn *c, const struct rabbit_url *u)
{
	char name[RABBIT_NAME_MAX];

	rabbit_name(u, "python.normal", name);
	for (int i = 0; i < 200 && !count_of(c, u, "dead"); i++) {
		amqp_rpc_reply_t r = amqp_basic_get(c->c, 1, amqp_cstring_bytes(name), 0);
		amqp_message_t m;

		assert_int_equal(r.reply_type, AMQP_RESPONSE_NORMAL);
		if (r.reply.id != AMQP_BASIC_GET_OK_METHOD)
			continue;
		assert_int_equal(amqp_read_message(c->c, 1, &m, 0).reply_type,
				 AMQP_RESPONSE_NORMAL);
		amqp_destroy_message(&m);
		assert_int_equal(
			amqp_basic_reject(
				c->c, 1, ((amqp_basic_get_ok_t *)r.reply.decoded)->delivery_tag, 1),
			0);
	}
	assert_int_equal(count_of(c, u, "dead"), 1);
}

static void dead_letters_are_shown_and_put_back(void **state)
{
	AUTO(queue_inspector_free) struct queue_inspector *i = NULL;
	struct fixture *f = *state;
	const char *url = rabbitmq_fresh();
	struct letters letters = {0};
	struct queue_count count;
	struct publishing p;
	struct rabbit_url u;
	struct rabbit_conn c;
	struct err e = {""};
	size_t total = 0, replayed = 0, left = 0;

	open_at(f, url);
	start_publish(f, &p);
	loop_run_until(&f->loop, &p.done);
	c = rabbitmq_side(url, &u);
	wear_out(&c, &u);
	write_raw(&c, &u, "garbage", 7, "");
	consume(f, 4);
	RUN_UNTIL(f, count_of(&c, &u, "dead") == 2);
	rabbit_disconnect(&c, true);

	assert_int_equal(queue_inspector_new("memory:", &i, &e), -EOPNOTSUPP);
	if (queue_inspector_new(url, &i, &e) < 0)
		fail_msg("%s", e.msg);
	assert_int_equal(queue_inspect_count(i, "cobol", TASK_CLASS_LOW, &count, &e), 0);
	assert_false(count.exists);
	assert_int_equal(queue_inspect_count(i, "python", TASK_CLASS_NORMAL, &count, &e), 0);
	assert_true(count.exists && count.ready == 0 && count.consumers == 1);
	/* Looking changes nothing. */
	for (int k = 0; k < 2; k++) {
		letters.n = 0;
		assert_int_equal(queue_inspect_dead(i, 4, &total, keep_letter, &letters, &e), 0);
		assert_int_equal(total, 2);
		assert_int_equal(letters.n, 2);
	}
	assert_true(letters.seen[0].readable);
	assert_true(uuid_eq(&letters.seen[0].message.id, &p.r.message.id));
	assert_string_equal(letters.seen[0].reason, "delivery_limit");
	assert_non_null(strstr(letters.seen[0].queue, "python.normal"));
	assert_true(letters.seen[0].died_us > 0);
	assert_false(letters.seen[1].readable);
	assert_string_equal(letters.seen[1].reason, "rejected");
	assert_true(letters.seen[1].problem[0]);
	if (queue_replay_dead(i, &replayed, &left, &e) < 0)
		fail_msg("%s", e.msg);
	assert_int_equal(replayed, 1);
	assert_int_equal(left, 1);
	RUN_UNTIL(f, f->n_held == 1);
	assert_true(uuid_eq(&f->last.id, &p.r.message.id));
}

/* ---- what goes wrong at the broker ---- */

static void deleted_queue_is_made_again(void **state)
{
	struct fixture *f = *state;
	const char *url = rabbitmq_fresh();
	struct rabbit_url u;
	struct rabbit_conn c;
	char name[RABBIT_NAME_MAX];

	open_at(f, url);
	f->acks = true;
	consume(f, 4);
	assert_int_equal(publish(f), 0);
	RUN_UNTIL(f, f->n_delivered == 1);
	c = rabbitmq_side(url, &u);
	rabbit_name(&u, "python.normal", name);
	(void)amqp_queue_delete(c.c, 1, amqp_cstring_bytes(name), 0, 0);
	assert_int_equal(rabbit_reply(&c, 1, NULL), 0);
	rabbit_disconnect(&c, true);
	/* With a new session, since its channels cannot be trusted any more. */
	RUN_UNTIL(f, f->n_lost == 1);
	RUN_UNTIL(f, publish(f) == 0);
	RUN_UNTIL(f, f->n_delivered >= 2);
	assert_int_equal(f->n_lost, 1);
}

static void publish_without_a_queue_fails(void **state)
{
	struct fixture *f = *state;
	const char *url = rabbitmq_fresh();
	struct rabbit_url u;
	struct rabbit_conn c;
	char name[RABBIT_NAME_MAX];

	/* Nobody consumes, so nobody hears of it before the message comes back. */
	open_at(f, url);
	assert_int_equal(publish(f), 0);
	c = rabbitmq_side(url, &u);
	rabbit_name(&u, "python.normal", name);
	(void)amqp_queue_delete(c.c, 1, amqp_cstring_bytes(name), 0, 0);
	assert_int_equal(rabbit_reply(&c, 1, NULL), 0);
	assert_int_equal(publish(f), -EAGAIN);
	RUN_UNTIL(f, publish(f) == 0);
	assert_int_equal(count_of(&c, &u, "python.normal"), 1);
	rabbit_disconnect(&c, true);
}

/* The broker's delivery limit is 20; that a scheduler has no use for a task now is no delivery. */
static void handing_back_costs_no_delivery(void **state)
{
	struct fixture *f = *state;
	const char *url = rabbitmq_fresh();
	struct rabbit_url u;
	struct rabbit_conn c;

	open_at(f, url);
	consume(f, 1);
	assert_int_equal(publish(f), 0);
	for (size_t i = 0; i < 50; i++) {
		RUN_UNTIL(f, f->n_held == i + 1);
		queue_hand_back(f->queue, f->held[i]);
	}
	RUN_UNTIL(f, f->n_held == 51);
	queue_ack(f->queue, f->held[50]);
	c = rabbitmq_side(url, &u);
	assert_int_equal(count_of(&c, &u, "dead"), 0);
	rabbit_disconnect(&c, true);
}

static void unacknowledged_come_again_after_a_close(void **state)
{
	struct fixture *f = *state;
	const char *url = rabbitmq_fresh();

	open_at(f, url);
	consume(f, 8);
	for (int i = 0; i < 20; i++)
		assert_int_equal(publish(f), 0);
	RUN_UNTIL(f, f->n_held == 8);
	queue_ack(f->queue, f->held[0]);
	queue_hand_back(f->queue, f->held[1]);
	close_queue(f);
	f->n_delivered = 0;
	f->acks = true;
	open_at(f, url);
	consume(f, 8);
	RUN_UNTIL(f, f->n_delivered == 19);
	run_for(f, 200);
	/* The copy may have been made twice, if the original was not acknowledged in time. */
	assert_in_range(f->n_delivered, 19, 20);
}

/* ---- what goes wrong in between ---- */

static void heartbeats_beat(void **state)
{
	struct fixture *f = *state;

	open_through_proxy(f, "&heartbeat=1");
	run_for(f, 5000);
	assert_int_equal(f->n_lost, 0);
	assert_int_equal(publish(f), 0);
}

static void cut_connection_loses_nothing(void **state)
{
	enum { N = 400 };
	static struct publishing p[N];
	struct fixture *f = *state;
	size_t confirmed = 0, done = 0;

	open_through_proxy(f, "");
	consume(f, 10);
	for (size_t i = 0; i < N; i++)
		start_publish(f, &p[i]);
	RUN_UNTIL(f, f->n_held == 10);
	cut_proxy_cut(f->proxy);
	RUN_UNTIL(f, f->n_lost == 1 && f->n_back == 1);
	assert_mentions(f->lost, "lost RabbitMQ at 127.0.0.1");
	while (done < N) {
		(void)uv_run(&f->loop, UV_RUN_NOWAIT);
		for (done = 0; done < N && p[done].done;)
			done++;
	}
	for (size_t i = 0; i < N; i++) {
		assert_true(p[i].code == 0 || p[i].code == -EAGAIN);
		confirmed += p[i].code == 0;
	}
	f->acks = true;
	for (size_t i = 0; i < f->n_held; i++)
		queue_ack(f->queue, f->held[i]);
	f->n_delivered = f->n_held;
	RUN_UNTIL(f, f->n_delivered >= confirmed);
	assert_int_equal(publish(f), 0);
}

static void stalled_connection_answers_and_recovers(void **state)
{
	struct fixture *f = *state;
	int64_t began_us;

	open_through_proxy(f, "&heartbeat=30");
	assert_int_equal(publish(f), 0);
	cut_proxy_set(f->proxy, CUT_STALL);
	began_us = clock_monotonic_us();
	assert_int_equal(publish(f), -EAGAIN);
	assert_in_range(clock_monotonic_us() - began_us, 4000000, 15000000);
	/* From here on nobody has to wait for that. */
	began_us = clock_monotonic_us();
	assert_int_equal(publish(f), -EAGAIN);
	assert_in_range(clock_monotonic_us() - began_us, 0, 2000000);
	assert_int_equal(queue_reserve(f->queue, "python", TASK_CLASS_NORMAL), -ENOTCONN);
	cut_proxy_set(f->proxy, CUT_PASS);
	RUN_UNTIL(f, queue_check(f->queue, NULL) == 0);
	assert_int_equal(publish(f), 0);
	/* It never was lost, so the one that took too long is there too. */
	assert_int_equal(f->n_lost, 0);
	RUN_UNTIL(f, ready(f) == 3);
}

static void silent_peer_is_given_up(void **state)
{
	struct fixture *f = *state;
	int64_t began_us;

	open_through_proxy(f, "&heartbeat=1");
	consume(f, 2);
	assert_int_equal(publish(f), 0);
	RUN_UNTIL(f, f->n_held == 1);
	cut_proxy_set(f->proxy, CUT_STALL);
	began_us = clock_monotonic_us();
	RUN_UNTIL(f, f->n_lost == 1);
	assert_in_range(clock_monotonic_us() - began_us, 1000000, 15000000);
	assert_mentions(f->lost, "heartbeat");
	cut_proxy_set(f->proxy, CUT_PASS);
	RUN_UNTIL(f, f->n_back == 1);
	RUN_UNTIL(f, f->n_held == 1);
	queue_ack(f->queue, f->held[0]);
	assert_int_equal(publish(f), 0);
}

static void close_while_away_is_prompt(void **state)
{
	struct fixture *f = *state;
	int64_t began_us;

	open_through_proxy(f, "");
	consume(f, 2);
	assert_int_equal(publish(f), 0);
	RUN_UNTIL(f, f->n_held == 1);
	cut_proxy_set(f->proxy, CUT_REFUSE);
	cut_proxy_cut(f->proxy);
	RUN_UNTIL(f, f->n_lost == 1);
	run_for(f, 1000);
	began_us = clock_monotonic_us();
	close_queue(f);
	assert_in_range(clock_monotonic_us() - began_us, 0, 8000000);
}

/* With a broker that has stopped, what is in flight is given up after a while. */
static void close_while_stalled_ends(void **state)
{
	struct publishing p;
	struct fixture *f = *state;

	open_through_proxy(f, "");
	consume(f, 2);
	assert_int_equal(publish(f), 0);
	RUN_UNTIL(f, f->n_held == 1);
	cut_proxy_set(f->proxy, CUT_STALL);
	start_publish(f, &p);
	queue_hand_back(f->queue, f->held[0]);
	close_queue(f);
	assert_true(p.done);
	assert_int_equal(p.code, -EAGAIN);
	cut_proxy_cut(f->proxy);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

const struct CMUnitTest rabbitmq_faults[] = {
	CASE(wrong_url_is_refused),
	CASE(url_is_read_as_written),
	CASE(wrong_password_is_refused),
	CASE(unknown_vhost_is_refused),
	CASE(nobody_there_is_tried_again),
	CASE(second_host_stands_in),
	CASE(queue_of_other_arguments_is_named),
	CASE(foreign_messages_go_to_the_dead_letters),
	CASE(traceparent_travels),
	CASE(message_that_cannot_be_carried_is_refused),
	CASE(dead_letters_are_shown_and_put_back),
	CASE(deleted_queue_is_made_again),
	CASE(publish_without_a_queue_fails),
	CASE(handing_back_costs_no_delivery),
	CASE(unacknowledged_come_again_after_a_close),
	CASE(heartbeats_beat),
	CASE(cut_connection_loses_nothing),
	CASE(stalled_connection_answers_and_recovers),
	CASE(silent_peer_is_given_up),
	CASE(close_while_away_is_prompt),
	CASE(close_while_stalled_ends),
};
const size_t rabbitmq_faults_count = ARRAY_SIZE(rabbitmq_faults);
