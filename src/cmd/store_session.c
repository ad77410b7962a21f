/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/store_session.h"

#include "base/fs.h"
#include "base/str.h"
#include "base/url.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

enum { BUSY_MS = 5000 };

void store_session_done(struct store_req *req, int code)
{
	struct store_session *s = req->ctx;

	s->code = code;
	uv_stop(&s->loop);
}

int store_session_open(struct store_session *s, const struct config *c, struct err *e)
{
	const struct store_config cfg = {.url = c->store, .busy_timeout_ms = BUSY_MS};
	const char *path = NULL;
	int r = 0;

	/* The store of a server that never ran yet has no folder. */
	if (url_scheme_is(c->store, "sqlite", &path) && str_has_prefix(path, c->data_dir))
		r = fs_make_dirs(c->data_dir, 0700, e);
	if (r < 0)
		return r;
	if (uv_loop_init(&s->loop))
		return err_errno(e, -ENOMEM, "could not start the event loop");
	r = store_open(&s->loop, &cfg, &s->store, e);
	if (r < 0) {
		(void)uv_run(&s->loop, UV_RUN_DEFAULT); /* closes what it had begun with */
		(void)uv_loop_close(&s->loop);
	}
	return r;
}

int store_session_wait(struct store_session *s)
{
	(void)uv_run(&s->loop, UV_RUN_DEFAULT);
	return s->code;
}

void store_session_close(struct store_session *s)
{
	store_close(s->store, NULL, NULL);
	(void)uv_run(&s->loop, UV_RUN_DEFAULT);
	(void)uv_loop_close(&s->loop);
}

int store_session_check_name(const char *name, struct err *e)
{
	size_t len = strlen(name);

	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)name[i];

		if (!isalnum(c) && !strchr("-_.@", c))
			len = 0;
	}
	if (!len || len >= STORE_KEY_NAME_MAX || len >= TASK_TENANT_MAX)
		return err_set(e, -EINVAL,
			       "\"%s\" is no name of a key or tenant: up to %d letters, digits and "
			       "- _ . @",
			       name, STORE_KEY_NAME_MAX - 1);
	return 0;
}
