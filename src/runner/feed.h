/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The standard input of a run: a pipe into which known bytes are written, as fast as the program
 * reads, and which is then closed. A program that ends without reading is no error.
 */

#include "base/err.h"

#include <stddef.h>
#include <uv.h>

struct feed;

/* Writes what fits at once. bytes must live until feed_free. *ret_fd is the end to read from, the
 * caller's to close; *ret_feed is NULL where nothing is left to do. */
int feed_new(uv_loop_t *loop, const void *bytes, size_t len, int *ret_fd, struct feed **ret_feed,
	     struct err *e);

/* The same into a pipe that is there already; takes its write end, well or not. */
int feed_new_consume(uv_loop_t *loop, const void *bytes, size_t len, int fd, struct feed **ret_feed,
		     struct err *e);

/* Stops at once; accepts NULL. */
void feed_free(struct feed *f);
