/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * For tests of the store on PostgreSQL: a server, whose URL is in KILN_TEST_POSTGRES_URL
 * (tools/stack.sh prints it), and whose user may make schemas and end connections. Tests have a
 * schema of their own there, which is emptied between them, and made anew after one that sets
 * "damaged".
 */

#include "store_suite.h"

extern const char *base_url;
extern char url[1024], schema[64];
extern bool damaged;

/* Runs tests, or says that they are skipped and why. */
int postgres_main(const char *name, const struct CMUnitTest *tests, size_t n);

/* As the administrator, in the tests' schema. Gives the first value, "" where there is none; valid
 * until the next call. */
const char *run_sql(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* After the server was away. */
void admin_connect(void);

/* The URL of the tests' schema, with more options of the session ("%20-cNAME%3DVALUE"). */
void url_with(char *dst, size_t size, const char *more);

/* The URL of Kiln's tables, without rows. */
const char *fresh(void);

/* Makes "url" that of a schema that has no tables. */
void make_empty_schema(void);

/* Opens, and closes again where that worked. */
int try_open(struct fixture *f, const char *with_url, struct err *e);

void run_for(struct fixture *f, int64_t ms);

/* "kill" or "up": runs tools/stack.sh, which started the server. */
void stack(const char *verb);
