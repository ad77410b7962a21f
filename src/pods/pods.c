/* SPDX-License-Identifier: Apache-2.0 */
#include "pods/pods-private.h"

#include "base/cleanup.h"
#include "base/url.h"

#include <errno.h>

static const struct pods_impl *const impls[] = {&pods_local, &pods_remote, &pods_kubernetes};

int pods_open(uv_loop_t *loop, const struct pods_config *cfg, const struct pods_ops *ops, void *ctx,
	      struct pods **ret_pods, struct err *e)
{
	char shown[URL_SHOWN_MAX];

	for (size_t i = 0; i < ARRAY_SIZE(impls); i++)
		if (url_scheme_is(cfg->url, impls[i]->scheme, NULL))
			return impls[i]->open(loop, cfg, ops, ctx, ret_pods, e);
	(void)url_show(cfg->url, shown, sizeof shown);
	return err_set(
		e, -EINVAL,
		"\"%s\" names no place for pods: use \"local:\", \"runners:NAME@HOST:PORT,...\" or "
		"\"kubernetes:NAMESPACE\"",
		shown);
}

void pods_connection_lost(struct pods *p, const char *pod, const char *reason)
{
	p->impl->connection_lost(p, pod, reason);
}

void pods_heard(struct pods *p, const char *pod, unsigned slots, unsigned used, uint64_t tasks)
{
	if (p->impl->heard)
		p->impl->heard(p, pod, slots, used, tasks);
}

void pods_reload(struct pods *p)
{
	if (p->impl->reload)
		p->impl->reload(p);
}

void pods_explain(const struct pods *p, struct buf *why)
{
	if (p->impl->explain)
		p->impl->explain(p, why);
}

int pods_describe(const struct pods *p, struct buf *json)
{
	return p->impl->describe ? p->impl->describe(p, json) : -EOPNOTSUPP;
}

void pods_close(struct pods *p, int64_t grace_ms, void (*closed)(void *ctx), void *ctx)
{
	p->impl->close(p, grace_ms, closed, ctx);
}
