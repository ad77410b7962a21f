/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A proxy on 127.0.0.1 that fails on demand, for tests of what becomes of a broken network. It
 * runs on a thread of its own.
 */

#include <stdint.h>

struct cut_proxy;

enum cut_mode {
	CUT_PASS,
	CUT_STALL,  /* connections stay open, nothing gets through, in either direction */
	CUT_REFUSE, /* connections are closed as soon as they are made */
};

/* Passes connections on to 127.0.0.1:port. */
struct cut_proxy *cut_proxy_new(uint16_t port);
void cut_proxy_free(struct cut_proxy *p);
uint16_t cut_proxy_port(const struct cut_proxy *p);

void cut_proxy_set(struct cut_proxy *p, enum cut_mode mode);

/* Resets all connections that there are. */
void cut_proxy_cut(struct cut_proxy *p);
