/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Which languages are installed, as the schedulers of the cluster tell over the bus, written into
 * the registry of this process. A language that nobody has told of for half a minute, while others
 * are told of, counts as gone: a runner that is restarted comes back sooner.
 */

#include "bus/bus.h"
#include "task/language.h"

struct heard;

/* bus and languages must live until heard_free. -ENOMEM. */
int heard_new(struct bus *bus, struct language_registry *languages, struct heard **ret_heard);
void heard_free(struct heard *h);

/* Whether anything was told yet. */
bool heard_any(const struct heard *h);
