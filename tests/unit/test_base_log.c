/* SPDX-License-Identifier: Apache-2.0 */
#include "base/log.h"

#include "base/cleanup.h"
#include "base/fs.h"
#include "base/str.h"
#include "unit.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

/* Standard error goes into a file in memory while something is logged. */
struct capture {
	int saved, fd;
	struct buf text;
};

static int begin(void **state)
{
	static struct capture c;

	log_set_level(LOG_DEBUG);
	buf_init(&c.text, 1 << 20);
	c.fd = memfd_create("log", MFD_CLOEXEC);
	c.saved = dup(STDERR_FILENO);
	assert_true(c.fd >= 0 && c.saved >= 0);
	assert_true(dup2(c.fd, STDERR_FILENO) >= 0);
	*state = &c;
	return 0;
}

static int end(void **state)
{
	struct capture *c = *state;

	assert_true(dup2(c->saved, STDERR_FILENO) >= 0);
	cleanup_close(&c->saved);
	cleanup_close(&c->fd);
	buf_fini(&c->text);
	return 0;
}

/* What was logged since the last call. */
static const char *logged(struct capture *c)
{
	buf_clear(&c->text);
	assert_true(lseek(c->fd, 0, SEEK_SET) == 0);
	assert_int_equal(fs_read_fd(c->fd, &c->text), 0);
	assert_int_equal(ftruncate(c->fd, 0), 0);
	assert_true(lseek(c->fd, 0, SEEK_SET) == 0);
	return c->text.data;
}

static void assert_ends_with(const char *text, const char *end)
{
	size_t n = strlen(text), m = strlen(end);

	if (n < m || !str_eq(text + n - m, end))
		fail_msg("\"%s\" does not end with \"%s\"", text, end);
}

static void line_is_one_json_object(void **state)
{
	struct uuid id;
	const char *text;

	assert_int_equal(uuid_parse("0123abcd-4567-89ef-cdef-0123456789ab", &id), 0);
	log_info("runner", "runner is connected", LOG_STR("pod", "p1"), LOG_INT("slots", -4),
		 LOG_TASK(&id));
	text = logged(*state);
	assert_true(str_has_prefix(text, "{\"ts\":\"20"));
	assert_ends_with(text, "Z\",\"level\":\"info\",\"component\":\"runner\","
			       "\"msg\":\"runner is connected\",\"pod\":\"p1\",\"slots\":-4,"
			       "\"task_id\":\"0123abcd-4567-89ef-cdef-0123456789ab\"}\n");
}

static void trace_is_told_where_there_is_one(void **state)
{
	log_info("c", "m", LOG_TRACE(NULL), LOG_TRACE("nonsense"),
		 LOG_TRACE("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
		 LOG_INT("n", 1));
	assert_ends_with(logged(*state), "\"msg\":\"m\",\"trace_id\":"
					 "\"4bf92f3577b34da6a3ce929d0e0e4736\",\"n\":1}\n");
}

static void line_without_fields_works(void **state)
{
	log_error("c", "m");
	assert_ends_with(logged(*state),
			 "\"level\":\"error\",\"component\":\"c\",\"msg\":\"m\"}\n");
}

static void levels_below_are_silent(void **state)
{
	log_set_level(LOG_WARN);
	log_debug("c", "m");
	log_info("c", "m");
	assert_string_equal(logged(*state), "");
	log_warn("c", "m");
	assert_ends_with(logged(*state), "\"msg\":\"m\"}\n");
}

static void text_is_escaped(void **state)
{
	log_info("c", "a\"b\\c\nd\te\x01\x7f", LOG_STR("k", "\r\n"), LOG_STR("none", NULL));
	assert_ends_with(logged(*state), "\"msg\":\"a\\\"b\\\\c\\u000ad\\u0009e\\u0001\\u007f\","
					 "\"k\":\"\\u000d\\u000a\",\"none\":\"\"}\n");
}

static void text_that_is_not_utf8_is_marked(void **state)
{
	log_info("c", "caf\xc3\xa9", LOG_STR("bad", "x\xff\xc3y"));
	assert_ends_with(logged(*state), "\"msg\":\"caf\xc3\xa9\",\"bad\":\"x\?\?y\"}\n");
}

static void line_too_long_falls_back(void **state)
{
	static char big[20000];

	memset(big, 'x', sizeof big - 1);
	log_info("c", "m", LOG_STR("big", big));
	assert_ends_with(logged(*state),
			 "\"component\":\"c\",\"msg\":\"a log line was too long\"}\n");
}

static void errno_is_kept(void **state)
{
	errno = EXDEV;
	log_info("c", "m");
	assert_int_equal(errno, EXDEV);
	(void)logged(*state);
}

static void levels_parsed(void **state)
{
	enum log_level level = LOG_DEBUG;

	(void)state;
	assert_int_equal(log_level_parse("warn", &level), 0);
	assert_int_equal(level, LOG_WARN);
	assert_int_equal(log_level_parse("error", &level), 0);
	assert_int_equal(log_level_parse("info", &level), 0);
	assert_int_equal(log_level_parse("debug", &level), 0);
	assert_int_equal(level, LOG_DEBUG);
	assert_int_equal(log_level_parse("WARN", &level), -EINVAL);
	assert_int_equal(log_level_parse("", &level), -EINVAL);
	assert_int_equal(level, LOG_DEBUG);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, begin, end)

static const struct CMUnitTest tests[] = {
	CASE(line_is_one_json_object),
	CASE(trace_is_told_where_there_is_one),
	CASE(line_without_fields_works),
	CASE(levels_below_are_silent),
	CASE(text_is_escaped),
	CASE(text_that_is_not_utf8_is_marked),
	CASE(line_too_long_falls_back),
	CASE(errno_is_kept),
	CASE(levels_parsed),
};

UNIT_MAIN(tests)
