/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The dead letters that can be read, held against the store: a task that is still queued is put
 * back into the outbox, since the broker's idea of too many deliveries says nothing about the task
 * (schedulers that end count as well), and its attempts are the store's to count. Of the others,
 * and then of these, the dead letter is dropped. What cannot be read stays, for a person.
 */

#include "outbox/reconciler.h"

struct dead;

int dead_open(uv_loop_t *loop, const struct reconciler_config *cfg, struct dead **ret_dead);

/* closed may come from in here. */
void dead_close(struct dead *d, void (*closed)(void *ctx), void *ctx);

/* Begins, where there are dead letters that were not looked at before. */
void dead_tick(struct dead *d);
