/* SPDX-License-Identifier: Apache-2.0 */
#include "pods/kube/lines.h"

#include <errno.h>
#include <string.h>

void kube_lines_init(struct kube_lines *l, size_t line_max)
{
	buf_init(&l->rest, line_max);
}

void kube_lines_fini(struct kube_lines *l)
{
	buf_fini(&l->rest);
}

void kube_lines_clear(struct kube_lines *l)
{
	size_t max = l->rest.max;

	buf_fini(&l->rest);
	buf_init(&l->rest, max);
}

static int end_line(struct kube_lines *l, kube_line_cb line, void *ctx)
{
	int r = l->rest.len ? line(ctx, l->rest.data, l->rest.len) : 0;

	buf_clear(&l->rest);
	return r;
}

int kube_lines_feed(struct kube_lines *l, const char *bytes, size_t len, kube_line_cb line,
		    void *ctx)
{
	while (len) {
		const char *end = memchr(bytes, '\n', len);
		size_t n = end ? (size_t)(end - bytes) : len;
		int r = buf_append(&l->rest, bytes, n);

		if (r < 0)
			return r == -ENOBUFS ? -EMSGSIZE : r;
		if (!end)
			return 0;
		r = end_line(l, line, ctx);
		if (r < 0)
			return r;
		bytes += n + 1;
		len -= n + 1;
	}
	return 0;
}
