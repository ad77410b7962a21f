/* SPDX-License-Identifier: Apache-2.0 */

/* The view for people. What only the leader decides is null elsewhere. */

#include "base/clock.h"
#include "pods/kubernetes-private.h"
#include "json/writer.h"

static void write_size(struct json_writer *w, const struct plan_pool *pool, bool leads)
{
	const struct sizing_verdict *v = &pool->verdict;
	char why[SIZING_EXPLAIN_MAX];

	if (!leads) {
		json_write_null_field(w, "want");
		json_write_null_field(w, "reason");
		json_write_null_field(w, "brake");
		json_write_null_field(w, "waiting");
		json_write_null_field(w, "why");
		return;
	}
	sizing_explain(v, &pool->count, why);
	json_write_int_field(w, "want", v->want);
	json_write_text_field(w, "reason", sizing_reason_name(v->reason));
	json_write_text_field(w, "brake", sizing_brake_name(v->brake));
	json_write_int_field(w, "waiting", (int64_t)pool->waiting);
	json_write_text_field(w, "why", why);
}

static void write_pool(struct json_writer *w, const struct plan_pool *pool, bool leads)
{
	json_write_begin_object(w);
	json_write_text_field(w, "name", pool->def.name);
	json_write_text_field(w, "revision", pool->def.revision);
	json_write_int_field(w, "min", pool->def.size.min_pods);
	json_write_int_field(w, "max", pool->def.size.max_pods);
	write_size(w, pool, leads);
	json_write_int_field(w, "failed_starts", pool->failures);
	json_write_int_field(w, "start_ms", plan_start_ms(pool));
	json_write_end_object(w);
}

static void write_pod(struct json_writer *w, const struct plan_pod *pod, int64_t now_ms)
{
	json_write_begin_object(w);
	json_write_text_field(w, "name", pod->facts.name);
	json_write_text_field(w, "pool", pod->facts.pool);
	json_write_text_field(w, "revision", pod->facts.revision);
	json_write_text_field(w, "state", plan_state_name(plan_state_of(pod)));
	json_write_int_field(w, "slots", pod->slots);
	json_write_int_field(w, "used", pod->used);
	json_write_int_field(w, "tasks", (int64_t)pod->tasks);
	/* Since this process knows it: since its creation, where it was made meanwhile. */
	json_write_int_field(w, "known_s", (now_ms - pod->seen_ms) / 1000);
	if (pod->facts.created_s)
		json_write_int_field(w, "age_s", clock_wall_us() / 1000000 - pod->facts.created_s);
	else
		json_write_null_field(w, "age_s");
	json_write_text_field(w, "node", pod->facts.node);
	json_write_text_field(w, "reason", pod->facts.reason);
	json_write_text_field(w, "said", pod->facts.message);
	json_write_end_object(w);
}

int kubernetes_describe(const struct pods *pods, struct buf *json)
{
	const void *self = pods; /* its first member */
	const struct kubernetes *k = self;
	bool leads = elector_leads(k->elector);
	int64_t now_ms = clock_monotonic_us() / 1000;
	const struct plan_pod *pod;
	struct json_writer w;
	size_t cursor;

	json_writer_init(&w, json);
	json_write_begin_object(&w);
	json_write_bool_field(&w, "leads", leads);
	json_write_text_field(&w, "leader", elector_holder(k->elector));
	json_write_name(&w, "pools");
	json_write_begin_array(&w);
	for (size_t i = 0; i < k->plan.n_pools; i++)
		if (!k->plan.pools[i]->gone)
			write_pool(&w, k->plan.pools[i], leads);
	json_write_end_array(&w);
	json_write_name(&w, "pods");
	json_write_begin_array(&w);
	MAP_FOREACH (pod, cursor, &k->plan.pods)
		write_pod(&w, pod, now_ms);
	json_write_end_array(&w);
	json_write_end_object(&w);
	return buf_error(json);
}
