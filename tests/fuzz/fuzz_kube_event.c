/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What an API server, or somebody in its place, can send in a watch: bytes in pieces of any size
 * through the splitter of lines, and each line through all that reads objects.
 */

#include "pods/kube/lease.h"
#include "pods/kube/lines.h"
#include "pods/kube/plan.h"
#include "pods/kube/retry.h"
#include "json/reader.h"

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { LINE_MAX_BYTES = 2048 };

static void plan_it(const struct kube_pod *facts)
{
	static int64_t now_ms;
	struct plan plan;
	struct plan_pod *pod;
	bool is_new;

	plan_init(&plan, 0, 1);
	if (plan_seen(&plan, facts, ++now_ms, &pod, &is_new) < 0 || !is_new)
		abort();
	if (!plan_state_name(plan_state_of(pod)))
		abort();
	plan_fini(&plan);
}

static void write_a_pod(struct kube_pool *pool)
{
	struct buf b;

	buf_init(&b, 65536);
	if (strlen(pool->revision) == 0 || pool->size.min_pods > pool->size.max_pods)
		abort();
	(void)kube_pool_write_pod(pool, "kiln-x-y-z", &b, NULL);
	buf_fini(&b);
	kube_pool_fini(pool);
}

static int on_line(void *ctx, const char *text, size_t len)
{
	static const struct json_bounds bounds = {.depth = 64, .values = 1000};
	AUTO(json_cleanup) json_t *event = NULL;
	const json_t *object;
	struct lease_record record;
	struct kube_pool pool;
	struct kube_pod pod;
	struct err e;

	(void)ctx;
	if (strlen(text) > len || len > LINE_MAX_BYTES)
		abort();
	(void)kube_status_code(409, text, len, &e);
	if (json_decode(text, len, &bounds, &event, &e) < 0)
		return 0;
	object = json_object_get(event, "object");
	if (kube_pod_read(object, &pod, &e) == 0)
		plan_it(&pod);
	if (kube_pool_read(object, &pool, &e) == 0)
		write_a_pod(&pool);
	(void)lease_read(object, &record, &e);
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t step = size ? (size_t)data[0] + 1 : 1;
	struct kube_lines lines;

	kube_lines_init(&lines, LINE_MAX_BYTES);
	for (size_t at = 1; at < size; at += step) {
		size_t n = size - at < step ? size - at : step;

		if (kube_lines_feed(&lines, (const char *)data + at, n, on_line, NULL) < 0)
			break;
	}
	kube_lines_fini(&lines);
	return 0;
}
