/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What is particular to the queue at a RabbitMQ: refusals, foreign messages, queues that vanish,
 * connections that break. */

#include "unit.h"

#include "queue/rabbitmq-private.h"

extern const struct CMUnitTest rabbitmq_faults[];
extern const size_t rabbitmq_faults_count;

/* The URL of the test's RabbitMQ with names that nobody used yet; valid until the next one. */
const char *rabbitmq_fresh(void);
/* Removes what was made under them. */
void rabbitmq_drop(void);
/* A connection of the test's own, with channel 1 open. */
struct rabbit_conn rabbitmq_side(const char *url, struct rabbit_url *ret_url);
