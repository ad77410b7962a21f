/* SPDX-License-Identifier: Apache-2.0 */

/* The suite of all queues over a real RabbitMQ, each test with names of its own there, and faults.
 */

#include "queue_suite.h"
#include "rabbitmq_faults.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/str.h"
#include "queue/rabbitmq-private.h"

static const char *base_url;
static char url[1024];
static unsigned n_fresh;

const char *rabbitmq_fresh(void)
{
	(void)snprintf(url, sizeof url, "%s%cprefix=t%d_%u", base_url,
		       strchr(base_url, '?') ? '&' : '?', (int)getpid(), ++n_fresh);
	return url;
}

struct rabbit_conn rabbitmq_side(const char *to, struct rabbit_url *ret_url)
{
	struct rabbit_conn c = {.fd = -1};
	struct err e = {""};

	if (rabbit_url_parse(to + strlen("amqp:"), ret_url, &e) < 0 ||
	    rabbit_connect(ret_url, 0, "test", &c, &e) < 0 || rabbit_open_channel(&c, 1, &e) < 0)
		fail_msg("%s", e.msg);
	return c;
}

static void delete_queue(struct rabbit_conn *c, const struct rabbit_url *u, const char *what)
{
	char name[RABBIT_NAME_MAX];

	rabbit_name(u, what, name);
	(void)amqp_queue_delete(c->c, 1, amqp_cstring_bytes(name), 0, 0);
	(void)rabbit_reply(c, 1, NULL);
}

void rabbitmq_drop(void)
{
	static const char *const queues[] = {"python.high", "python.normal", "python.low", "c.high",
					     "c.normal",    "c.low",	     "dead"};
	static const char *const exchanges[] = {"tasks", "dead"};
	char name[RABBIT_NAME_MAX];
	struct rabbit_url u;
	struct rabbit_conn c;

	if (!url[0])
		return; /* nothing was made */
	c = rabbitmq_side(url, &u);

	for (size_t i = 0; i < ARRAY_SIZE(queues); i++)
		delete_queue(&c, &u, queues[i]);
	for (size_t i = 0; i < ARRAY_SIZE(exchanges); i++) {
		rabbit_name(&u, exchanges[i], name);
		(void)amqp_exchange_delete(c.c, 1, amqp_cstring_bytes(name), 0);
		(void)rabbit_reply(&c, 1, NULL);
	}
	rabbit_disconnect(&c, true);
	url[0] = '\0';
}

static const struct queue_backend backend = {
	.fresh = rabbitmq_fresh, .drop = rabbitmq_drop, .settle_ms = 100};

int main(void)
{
	struct CMUnitTest all[64];

	base_url = getenv("KILN_TEST_RABBITMQ_URL");
	if (!base_url || !*base_url) {
		(void)printf("1..0 # SKIP KILN_TEST_RABBITMQ_URL is not set (tools/stack.sh)\n");
		return 0;
	}
	queue_backend = &backend;
	/* One group: TAP has one plan. */
	assert(queue_suite_count + rabbitmq_faults_count <= ARRAY_SIZE(all));
	memcpy(all, queue_suite, queue_suite_count * sizeof *all);
	memcpy(all + queue_suite_count, rabbitmq_faults, rabbitmq_faults_count * sizeof *all);
	return _cmocka_run_group_tests("queue at RabbitMQ", all,
				       queue_suite_count + rabbitmq_faults_count, NULL, NULL);
}
