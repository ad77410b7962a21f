/* SPDX-License-Identifier: Apache-2.0 */
#include "store_suite.h"

#include "base/str.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { BIG = 300 * 1024 };

/* ---- insert and get ---- */

static void get_with_contents_returns_what_was_inserted(void **state)
{
	struct fixture *f = *state;
	struct spec_options o = {
		.code = "a\0b", .code_len = 3, .stdin_text = "in", .deadline_us = 9};
	struct uuid id = add_task_with(f, &o);
	AUTO(task_free) struct task *t = get_task(f, &id, STORE_CONTENTS | STORE_RESULT);

	assert_int_equal(t->state, TASK_QUEUED);
	assert_int_equal(t->attempt, 0);
	assert_false(t->cancelling);
	assert_true(t->started_us == 0 && t->finished_us == 0);
	assert_null(t->result);
	assert_string_equal(t->spec.tenant, "acme");
	assert_string_equal(t->spec.program.language, "python");
	assert_string_equal(t->spec.program.entry, "main.py");
	assert_int_equal(t->spec.class, TASK_CLASS_HIGH);
	assert_true(t->spec.created_us == NOW_US && t->spec.deadline_us == 9);
	assert_non_null(strstr(t->spec.traceparent, "0af765"));
	assert_int_equal(t->spec.program.n_files, 1);
	assert_string_equal(t->spec.program.files[0].name, "main.py");
	assert_int_equal(t->spec.program.files[0].content.len, 3);
	assert_memory_equal(t->spec.program.files[0].content.data, "a\0b", 3);
	assert_int_equal(t->spec.n_runs, 1);
	assert_int_equal(t->spec.runs[0].n_args, 2);
	assert_string_equal(t->spec.runs[0].args[0], "-x");
	assert_string_equal(t->spec.runs[0].args[1], "");
	assert_string_equal(t->spec.runs[0].stdin_data.data, "in");
	assert_true(t->spec.runs[0].limits.cpu_ms == 2000);
	assert_true(t->spec.runs[0].limits.wall_ms == TASK_LIMIT_UNSET);
}

static void get_meta_leaves_contents_out(void **state)
{
	struct fixture *f = *state;
	char *big = malloc(BIG);
	struct spec_options small = {.stdin_text = "in"};
	struct spec_options large = {.code = big, .code_len = BIG, .stdin_text = "in"};
	const struct spec_options *const both[] = {&small, &large};

	assert_non_null(big);
	memset(big, 'b', BIG);
	for (size_t i = 0; i < ARRAY_SIZE(both); i++) {
		struct uuid id = add_task_with(f, both[i]);
		struct task *t = get_task(f, &id, STORE_META);

		assert_string_equal(t->spec.program.files[0].name, "main.py");
		assert_null(t->spec.program.files[0].content.data);
		assert_int_equal(t->spec.program.files[0].content.len, 0);
		assert_null(t->spec.runs[0].stdin_data.data);
		assert_string_equal(t->spec.runs[0].args[0], "-x");
		task_free(t);
		t = get_task(f, &id, STORE_CONTENTS);
		assert_int_equal(t->spec.program.files[0].content.len, both[i]->code ? BIG : 9);
		assert_string_equal(t->spec.runs[0].stdin_data.data, "in");
		if (both[i]->code)
			assert_memory_equal(t->spec.program.files[0].content.data, big, BIG);
		task_free(t);
	}
	free(big);
}

static void get_unknown_or_foreign_refused(void **state)
{
	struct fixture *f = *state;
	struct uuid id = add_task(f);
	struct store_get other = {.id = id, .tenant = "other"};
	struct store_get own = {.id = id, .tenant = "acme"};
	struct store_get unknown = {0};
	struct store_get bad = {.id = id, .parts = 8};

	uuid7_new(&unknown.id);
	assert_int_equal(RUN(get, f, &other), -ENOENT);
	assert_null(other.task);
	assert_int_equal(RUN(get, f, &unknown), -ENOENT);
	assert_int_equal(RUN(get, f, &bad), -EINVAL);
	assert_int_equal(RUN(get, f, &own), 0);
	task_free(own.task);
}

static void insert_of_known_id_refused(void **state)
{
	struct fixture *f = *state;
	struct task_spec spec;
	struct store_insert r = {.spec = &spec};

	make_spec(&spec, &(struct spec_options){0});
	assert_int_equal(RUN(insert, f, &r), 0);
	assert_int_equal(RUN(insert, f, &r), -EEXIST);
	assert_state(f, &spec.id, TASK_QUEUED, 0);
	task_spec_fini(&spec);
}

static void insert_with_bad_fields_refused(void **state)
{
	char long_text[STORE_IDEMPOTENCY_KEY_MAX + 2];
	struct fixture *f = *state;
	const struct {
		const char *tenant, *language, *key;
	} bad[] = {
		{"", NULL, NULL},	 {NULL, "", NULL},	  {long_text, NULL, NULL},
		{NULL, long_text, NULL}, {NULL, NULL, long_text}, {NULL, NULL, ""},
	};

	memset(long_text, 'x', sizeof long_text - 1);
	long_text[sizeof long_text - 1] = '\0';
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct spec_options o = {.tenant = bad[i].tenant, .language = bad[i].language};
		struct task_spec spec;
		struct store_insert r = {.spec = &spec, .idempotency_key = bad[i].key};

		make_spec(&spec, &o);
		assert_int_equal(RUN(insert, f, &r), -EINVAL);
		task_spec_fini(&spec);
	}
}

static void insert_many_at_once_all_kept(void **state)
{
	enum { MANY = 500 };
	struct fixture *f = *state;
	struct task_spec *specs = calloc(MANY, sizeof *specs);
	struct store_insert *r = calloc(MANY, sizeof *r);
	struct waiter w = {0};

	assert_true(specs && r);
	for (size_t i = 0; i < MANY; i++) {
		make_spec(&specs[i], &(struct spec_options){0});
		r[i].spec = &specs[i];
		BEGIN(insert, f, &w, &r[i]);
	}
	(void)wait_all(f, &w);
	for (size_t i = 0; i < MANY; i++) {
		assert_int_equal(r[i].req.code, 0);
		assert_state(f, &specs[i].id, TASK_QUEUED, 0);
		task_spec_fini(&specs[i]);
	}
	free(specs);
	free(r);
}

/* ---- idempotency ---- */

struct keyed {
	const char *tenant, *key;
	uint8_t hash;
	int64_t created_us, expires_us;
};

static int insert_keyed(struct fixture *f, const struct keyed *k, struct store_insert *r,
			struct uuid *ret_id)
{
	struct spec_options o = {.tenant = k->tenant};
	struct task_spec spec;
	int code;

	make_spec(&spec, &o);
	if (k->created_us)
		spec.created_us = k->created_us;
	*ret_id = spec.id;
	*r = (struct store_insert){
		.spec = &spec,
		.idempotency_key = k->key,
		.body_hash = {k->hash},
		.idempotency_expires_us = k->expires_us ? k->expires_us : NOW_US + 100,
	};
	code = RUN(insert, f, r);
	task_spec_fini(&spec);
	return code;
}

static void insert_with_known_key_answers_earlier_task(void **state)
{
	struct fixture *f = *state;
	struct store_insert r;
	struct uuid first, id;
	struct store_get get = {0};

	assert_int_equal(insert_keyed(f, &(struct keyed){.key = "k", .hash = 1}, &r, &first), 0);
	assert_false(r.existing);
	assert_int_equal(insert_keyed(f, &(struct keyed){.key = "k", .hash = 1}, &r, &id), 0);
	assert_true(r.existing);
	assert_true(uuid_eq(&r.existing_id, &first));
	get.id = id;
	assert_int_equal(RUN(get, f, &get), -ENOENT);
	assert_int_equal(insert_keyed(f, &(struct keyed){.key = "k", .hash = 2}, &r, &id), -EEXIST);
	get.id = id;
	assert_int_equal(RUN(get, f, &get), -ENOENT);
}

static void insert_with_key_of_another_tenant_is_new(void **state)
{
	struct fixture *f = *state;
	struct keyed other = {.tenant = "other", .key = "k", .hash = 2};
	struct store_insert r;
	struct uuid first, id;

	assert_int_equal(insert_keyed(f, &(struct keyed){.key = "k", .hash = 1}, &r, &first), 0);
	assert_int_equal(insert_keyed(f, &other, &r, &id), 0);
	assert_false(r.existing);
	assert_state(f, &id, TASK_QUEUED, 0);
	assert_int_equal(insert_keyed(f, &(struct keyed){.key = "k2", .hash = 2}, &r, &id), 0);
	assert_false(r.existing);
}

static void insert_with_expired_key_is_new(void **state)
{
	struct fixture *f = *state;
	struct keyed k = {.key = "k", .hash = 1}, later = {.key = "k", .hash = 2};
	struct store_insert r;
	struct uuid first, second, id;

	assert_int_equal(insert_keyed(f, &k, &r, &first), 0);
	later.created_us = NOW_US + 100;
	later.expires_us = NOW_US + 200;
	assert_int_equal(insert_keyed(f, &later, &r, &second), 0);
	assert_false(r.existing);
	later.created_us = NOW_US + 199;
	assert_int_equal(insert_keyed(f, &later, &r, &id), 0);
	assert_true(r.existing);
	assert_true(uuid_eq(&r.existing_id, &second));
}

static void insert_with_key_of_pruned_task_is_new(void **state)
{
	struct fixture *f = *state;
	struct keyed k = {.key = "k", .hash = 1, .expires_us = NOW_US + 1000000};
	struct store_prune prune = {.before_us = NOW_US + 100, .now_us = NOW_US, .limit = 10};
	struct store_insert r;
	struct uuid first, id;

	assert_int_equal(insert_keyed(f, &k, &r, &first), 0);
	assert_int_equal(finish(f, &first, claim(f, &first), TASK_DONE, NULL), 0);
	assert_int_equal(RUN(prune, f, &prune), 0);
	assert_int_equal(prune.n, 1);
	assert_int_equal(insert_keyed(f, &k, &r, &id), 0);
	assert_false(r.existing);
	assert_state(f, &id, TASK_QUEUED, 0);
}

static void insert_same_key_at_once_makes_one_task(void **state)
{
	enum { MANY = 20 };
	struct fixture *f = *state;
	struct task_spec specs[MANY];
	struct store_insert r[MANY];
	struct waiter w = {0};
	size_t made = 0, first = MANY;

	for (size_t i = 0; i < MANY; i++) {
		make_spec(&specs[i], &(struct spec_options){0});
		r[i] = (struct store_insert){.spec = &specs[i],
					     .idempotency_key = "same",
					     .idempotency_expires_us = NOW_US + 100};
		BEGIN(insert, f, &w, &r[i]);
	}
	(void)wait_all(f, &w);
	for (size_t i = 0; i < MANY; i++) {
		assert_int_equal(r[i].req.code, 0);
		if (!r[i].existing) {
			made++;
			first = i;
		}
	}
	assert_int_equal(made, 1);
	for (size_t i = 0; i < MANY; i++)
		if (i != first)
			assert_true(uuid_eq(&r[i].existing_id, &specs[first].id));
	for (size_t i = 0; i < MANY; i++)
		task_spec_fini(&specs[i]);
}

/* ---- list ---- */

static void free_list(struct store_list *r)
{
	for (size_t i = 0; i < r->n; i++)
		task_free(r->tasks[i]);
	free(r->tasks);
}

static void list_pages_newest_first(void **state)
{
	enum { MANY = 25 };
	struct fixture *f = *state;
	struct uuid ids[MANY];
	size_t seen = 0;
	struct store_list r = {.state = -1, .limit = 10};

	for (size_t i = 0; i < MANY; i++)
		ids[i] = add_task(f);
	do {
		assert_int_equal(RUN(list, f, &r), 0);
		for (size_t i = 0; i < r.n; i++, seen++)
			assert_true(uuid_eq(&r.tasks[i]->spec.id, &ids[MANY - 1 - seen]));
		if (r.n) {
			r.before = r.tasks[r.n - 1]->spec.id;
			r.has_before = true;
		}
		free_list(&r);
	} while (r.n);
	assert_int_equal(seen, MANY);
}

/* One task in each state, of two tenants and two languages. */
static void add_assorted(struct fixture *f, const char *tenant, const char *language,
			 struct uuid ids[_TASK_STATE_MAX])
{
	struct spec_options o = {.tenant = tenant, .language = language};
	struct store_cancel_task cancel = {.now_us = NOW_US};
	struct store_claim late = {.owner = 7, .now_us = NOW_US};

	ids[TASK_QUEUED] = add_task_with(f, &o);
	ids[TASK_RUNNING] = add_task_with(f, &o);
	(void)claim(f, &ids[TASK_RUNNING]);
	ids[TASK_DONE] = add_task_with(f, &o);
	assert_int_equal(finish(f, &ids[TASK_DONE], claim(f, &ids[TASK_DONE]), TASK_DONE, NULL), 0);
	cancel.id = ids[TASK_CANCELLED] = add_task_with(f, &o);
	assert_int_equal(RUN(cancel_task, f, &cancel), 0);
	o.deadline_us = NOW_US - 1;
	late.id = ids[TASK_EXPIRED] = add_task_with(f, &o);
	assert_int_equal(RUN(claim, f, &late), -ESTALE);
	o.deadline_us = 0;
	ids[TASK_FAILED] = add_task_with(f, &o);
	assert_int_equal(
		finish(f, &ids[TASK_FAILED], claim(f, &ids[TASK_FAILED]), TASK_FAILED, NULL), 0);
}

static size_t count_listed(struct fixture *f, struct store_list r, const struct uuid *only)
{
	size_t n;

	r.limit = STORE_LIST_MAX;
	assert_int_equal(RUN(list, f, &r), 0);
	for (size_t i = 0; i < r.n; i++) {
		if (r.state >= 0)
			assert_int_equal(r.tasks[i]->state, r.state);
		if (r.tenant)
			assert_string_equal(r.tasks[i]->spec.tenant, r.tenant);
		if (r.language)
			assert_string_equal(r.tasks[i]->spec.program.language, r.language);
		if (only)
			assert_true(uuid_eq(&r.tasks[i]->spec.id, only));
	}
	n = r.n;
	free_list(&r);
	return n;
}

static void list_filters_combine(void **state)
{
	struct fixture *f = *state;
	struct uuid a[_TASK_STATE_MAX], b[_TASK_STATE_MAX], c[_TASK_STATE_MAX];

	add_assorted(f, "acme", "python", a);
	add_assorted(f, "acme", "c", b);
	add_assorted(f, "other", "python", c);
	assert_int_equal(count_listed(f, (struct store_list){.state = -1}, NULL), 18);
	assert_int_equal(count_listed(f, (struct store_list){.state = -1, .tenant = "acme"}, NULL),
			 12);
	assert_int_equal(count_listed(f, (struct store_list){.state = -1, .language = "c"}, NULL),
			 6);
	assert_int_equal(
		count_listed(f, (struct store_list){.state = -1, .tenant = "nobody"}, NULL), 0);
	for (int s = 0; s < _TASK_STATE_MAX; s++) {
		struct store_list all = {.state = s};
		struct store_list one = {.state = s, .tenant = "acme", .language = "c"};

		assert_int_equal(count_listed(f, all, NULL), 3);
		assert_int_equal(count_listed(f, one, &b[s]), 1);
		all.has_before = true;
		all.before = b[s];
		assert_int_equal(count_listed(f, all, &a[s]), 1);
	}
}

static void list_leaves_outputs_out(void **state)
{
	struct fixture *f = *state;
	struct uuid id = add_task_with(f, &(struct spec_options){.stdin_text = "in"});
	struct store_list r = {.state = TASK_DONE, .limit = 1};
	struct task_result result;

	make_result(&result, TASK_OUTCOME_OK, 100);
	assert_int_equal(finish(f, &id, claim(f, &id), TASK_DONE, &result), 0);
	task_result_fini(&result);
	assert_int_equal(RUN(list, f, &r), 0);
	assert_int_equal(r.n, 1);
	assert_null(r.tasks[0]->spec.program.files[0].content.data);
	assert_int_equal(r.tasks[0]->result->outcome, TASK_OUTCOME_OK);
	assert_true(r.tasks[0]->result->runs[0].usage.wall_us == 22);
	assert_null(r.tasks[0]->result->runs[0].output[TASK_STDOUT].data);
	free_list(&r);
}

static void list_with_bad_fields_refused(void **state)
{
	struct fixture *f = *state;
	struct store_list none = {.state = -1}, many = {.state = -1, .limit = STORE_LIST_MAX + 1};
	struct store_list odd = {.state = _TASK_STATE_MAX, .limit = 1};

	assert_int_equal(RUN(list, f, &none), -EINVAL);
	assert_int_equal(RUN(list, f, &many), -EINVAL);
	assert_int_equal(RUN(list, f, &odd), -EINVAL);
}

/* ---- prune ---- */

static void prune_removes_old_final_tasks_only(void **state)
{
	struct fixture *f = *state;
	struct uuid ids[_TASK_STATE_MAX];
	struct store_prune before = {.before_us = NOW_US, .now_us = NOW_US, .limit = 100};
	struct store_prune after = {.before_us = NOW_US + 21, .now_us = NOW_US, .limit = 100};
	struct store_get get = {0};

	add_assorted(f, NULL, NULL, ids);
	assert_int_equal(RUN(prune, f, &before), 0);
	assert_int_equal(before.n, 0);
	assert_int_equal(RUN(prune, f, &after), 0);
	assert_int_equal(after.n, 4);
	for (int s = 0; s < _TASK_STATE_MAX; s++) {
		get.id = ids[s];
		assert_int_equal(RUN(get, f, &get),
				 task_state_is_final((enum task_state)s) ? -ENOENT : 0);
		task_free(get.task);
	}
	assert_int_equal(RUN(prune, f, &after), 0);
	assert_int_equal(after.n, 0);
}

static void prune_keeps_to_its_limit(void **state)
{
	struct fixture *f = *state;
	struct store_prune r = {.before_us = NOW_US + 21, .now_us = NOW_US, .limit = 2};
	struct store_prune bad = {.before_us = NOW_US};
	struct uuid ids[_TASK_STATE_MAX];

	add_assorted(f, NULL, NULL, ids);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(RUN(prune, f, &r), 0);
		assert_int_equal(r.n, 2);
	}
	assert_int_equal(RUN(prune, f, &r), 0);
	assert_int_equal(r.n, 0);
	assert_int_equal(RUN(prune, f, &bad), -EINVAL);
}

/* ---- keys ---- */

static int add_key(struct fixture *f, const char *name, const char *tenant, uint8_t hash)
{
	struct store_key_add r = {.key = {.hash = {hash}, .created_us = NOW_US}};

	(void)str_copy(r.key.name, sizeof r.key.name, name);
	(void)str_copy(r.key.tenant, sizeof r.key.tenant, tenant);
	return RUN(key_add, f, &r);
}

static void keys_added_listed_and_revoked(void **state)
{
	struct fixture *f = *state;
	struct store_key_revoke revoke = {.name = "b", .now_us = NOW_US + 5};
	struct store_key_list list = {0};

	assert_int_equal(RUN(key_list, f, &list), 0);
	assert_int_equal(list.n, 0);
	assert_int_equal(add_key(f, "b", "t1", 1), 0);
	assert_int_equal(add_key(f, "a", "t2", 2), 0);
	assert_int_equal(add_key(f, "b", "t3", 3), -EEXIST);
	assert_int_equal(add_key(f, "", "t3", 3), -EINVAL);
	assert_int_equal(add_key(f, "c", "", 3), -EINVAL);
	assert_int_equal(RUN(key_revoke, f, &revoke), 0);
	revoke.now_us = NOW_US + 99;
	assert_int_equal(RUN(key_revoke, f, &revoke), 0);
	revoke.name = "nobody";
	assert_int_equal(RUN(key_revoke, f, &revoke), -ENOENT);
	assert_int_equal(RUN(key_list, f, &list), 0);
	assert_int_equal(list.n, 2);
	assert_string_equal(list.keys[0].name, "a");
	assert_string_equal(list.keys[0].tenant, "t2");
	assert_int_equal(list.keys[0].hash[0], 2);
	assert_true(list.keys[0].created_us == NOW_US && list.keys[0].revoked_us == 0);
	assert_string_equal(list.keys[1].name, "b");
	assert_string_equal(list.keys[1].tenant, "t1");
	assert_true(list.keys[1].revoked_us == NOW_US + 5);
	free(list.keys);
}

/* The same name is in force once, whatever came before; names may share a tenant. */
static void key_revoked_may_be_added_again(void **state)
{
	struct fixture *f = *state;
	struct store_key_revoke revoke = {.name = "b", .now_us = NOW_US + 5};
	struct store_key_list list = {0};

	assert_int_equal(add_key(f, "b", "t", 1), 0);
	assert_int_equal(add_key(f, "b2", "t", 2), 0);
	assert_int_equal(RUN(key_revoke, f, &revoke), 0);
	assert_int_equal(add_key(f, "b", "t9", 3), 0);
	assert_int_equal(add_key(f, "b", "t", 4), -EEXIST);
	assert_int_equal(add_key(f, "b2", "t", 4), -EEXIST);
	assert_int_equal(RUN(key_list, f, &list), 0);
	assert_int_equal(list.n, 2);
	assert_string_equal(list.keys[0].name, "b");
	assert_string_equal(list.keys[0].tenant, "t9");
	assert_int_equal(list.keys[0].hash[0], 3);
	assert_true(list.keys[0].revoked_us == 0);
	assert_string_equal(list.keys[1].tenant, "t");
	assert_int_equal(list.keys[1].hash[0], 2);
	free(list.keys);
}

static void keys_forgotten_only_when_all_are_revoked(void **state)
{
	struct fixture *f = *state;
	struct store_key_revoke revoke = {.name = "a", .now_us = NOW_US + 5};
	struct store_key_list list = {0};
	struct store_key_forget forget = {0};

	assert_int_equal(RUN(key_forget, f, &forget), 0);
	assert_int_equal(add_key(f, "a", "t", 1), 0);
	assert_int_equal(add_key(f, "b", "t", 2), 0);
	assert_int_equal(RUN(key_revoke, f, &revoke), 0);
	assert_int_equal(RUN(key_forget, f, &forget), -EBUSY);
	assert_int_equal(RUN(key_list, f, &list), 0);
	assert_int_equal(list.n, 2);
	free(list.keys);
	revoke.name = "b";
	assert_int_equal(RUN(key_revoke, f, &revoke), 0);
	assert_int_equal(RUN(key_forget, f, &forget), 0);
	assert_int_equal(RUN(key_list, f, &list), 0);
	assert_int_equal(list.n, 0);
}

static void keys_many_all_listed(void **state)
{
	struct fixture *f = *state;
	struct store_key_list list = {0};
	char name[2] = "?";

	for (int i = 0; i < 40; i++) {
		name[0] = (char)('0' + i);
		assert_int_equal(add_key(f, name, "t", (uint8_t)i), 0);
	}
	assert_int_equal(RUN(key_list, f, &list), 0);
	assert_int_equal(list.n, 40);
	for (size_t i = 0; i < list.n; i++)
		assert_int_equal(list.keys[i].hash[0], i);
	free(list.keys);
}

/* ---- requests, open and close ---- */

static void cancelled_request_did_all_or_nothing(void **state)
{
	enum { MANY = 200 };
	struct fixture *f = *state;
	struct task_spec *specs = calloc(MANY, sizeof *specs);
	struct store_insert *r = calloc(MANY, sizeof *r);
	struct waiter w = {0};

	assert_true(specs && r);
	for (size_t i = 0; i < MANY; i++) {
		make_spec(&specs[i], &(struct spec_options){0});
		r[i].spec = &specs[i];
		BEGIN(insert, f, &w, &r[i]);
		if (i % 2)
			store_cancel(&r[i].req);
	}
	(void)wait_all(f, &w);
	for (size_t i = 0; i < MANY; i++) {
		struct store_get get = {.id = specs[i].id};
		int code = r[i].req.code;

		assert_true(code == 0 || (i % 2 && code == -ECANCELED));
		assert_int_equal(RUN(get, f, &get), code ? -ENOENT : 0);
		task_free(get.task);
		task_spec_fini(&specs[i]);
	}
	free(specs);
	free(r);
}

static void cancelled_read_ends_once(void **state)
{
	struct fixture *f = *state;
	struct uuid id = add_task(f);
	struct store_get get = {.id = id};
	struct waiter w = {0};
	int code;

	BEGIN(get, f, &w, &get);
	store_cancel(&get.req);
	code = wait_all(f, &w);
	assert_true(code == -ECANCELED || code == 0);
	assert_int_equal(!get.task, code < 0);
	task_free(get.task);
}

struct closing {
	struct waiter w;
	bool closed;
};

static void on_closed(void *ctx)
{
	struct closing *c = ctx;

	assert_int_equal(c->w.pending, 0);
	c->closed = true;
}

static void close_finishes_what_was_asked(void **state)
{
	enum { MANY = 50 };
	struct fixture *f = *state;
	struct task_spec specs[MANY];
	struct store_insert r[MANY] = {0};
	struct store_get late = {0};
	struct closing c = {0};

	for (size_t i = 0; i < MANY; i++) {
		make_spec(&specs[i], &(struct spec_options){0});
		r[i].spec = &specs[i];
		BEGIN(insert, f, &c.w, &r[i]);
	}
	store_close(f->store, on_closed, &c);
	BEGIN(get, f, &c.w, &late);
	assert_true(c.w.pending >= 1);
	assert_false(c.closed);
	while (!c.closed)
		(void)uv_run(&f->loop, UV_RUN_ONCE);
	assert_int_equal(late.req.code, -ESHUTDOWN);
	fixture_open(f);
	for (size_t i = 0; i < MANY; i++) {
		assert_int_equal(r[i].req.code, 0);
		assert_state(f, &specs[i].id, TASK_QUEUED, 0);
		task_spec_fini(&specs[i]);
	}
}

static void probe_writes_what_nobody_sees(void **state)
{
	struct fixture *f = *state;
	struct store_list list = {.state = -1, .limit = 10};
	struct store_prune prune = {.before_us = NOW_US, .now_us = NOW_US, .limit = 10};
	struct store_probe probe = {0};
	int64_t ago_us = 0;

	for (int i = 0; i < 3; i++) {
		assert_int_equal(RUN(probe, f, &probe), 0);
		assert_int_equal(store_write_health(f->store, &ago_us), 0);
	}
	assert_int_equal(RUN(list, f, &list), 0);
	assert_int_equal(list.n, 0);
	assert_int_equal(RUN(prune, f, &prune), 0);
	assert_int_equal(prune.n, 0);
	assert_int_equal(RUN(probe, f, &probe), 0);
}

/* ---- tenants ---- */

static int set_tenant(struct fixture *f, const char *name, int64_t rate, int64_t running)
{
	struct store_tenant_set r = {
		.tenant.limits = {rate, STORE_TENANT_UNSET, STORE_TENANT_UNSET, running}};

	(void)snprintf(r.tenant.name, sizeof r.tenant.name, "%s", name);
	return RUN(tenant_set, f, &r);
}

static void tenants_set_listed_and_unset(void **state)
{
	struct fixture *f = *state;
	struct store_tenant_list list = {0};

	assert_int_equal(RUN(tenant_list, f, &list), 0);
	assert_int_equal(list.n, 0);
	assert_int_equal(set_tenant(f, "b", 60, STORE_TENANT_UNSET), 0);
	assert_int_equal(set_tenant(f, "a", 0, 4), 0);
	assert_int_equal(set_tenant(f, "b", 120, 2), 0);
	assert_int_equal(set_tenant(f, "", 1, 1), -EINVAL);
	assert_int_equal(set_tenant(f, "a", STORE_TENANT_UNSET - 1, 1), -EINVAL);
	assert_int_equal(RUN(tenant_list, f, &list), 0);
	assert_int_equal(list.n, 2);
	assert_string_equal(list.tenants[0].name, "a");
	assert_int_equal(list.tenants[0].limits[TENANT_RATE], 0);
	assert_int_equal(list.tenants[0].limits[TENANT_BURST], STORE_TENANT_UNSET);
	assert_string_equal(list.tenants[1].name, "b");
	assert_int_equal(list.tenants[1].limits[TENANT_RATE], 120);
	assert_int_equal(list.tenants[1].limits[TENANT_RUNNING], 2);
	free(list.tenants);
	assert_int_equal(set_tenant(f, "b", STORE_TENANT_UNSET, STORE_TENANT_UNSET), 0);
	assert_int_equal(set_tenant(f, "c", STORE_TENANT_UNSET, STORE_TENANT_UNSET), 0);
	assert_int_equal(RUN(tenant_list, f, &list), 0);
	assert_int_equal(list.n, 1);
	free(list.tenants);
}

static size_t count_queued(struct fixture *f, const char *tenant, size_t limit)
{
	struct store_count_queued r = {.tenant = tenant, .limit = limit};

	assert_int_equal(RUN(count_queued, f, &r), 0);
	return r.n;
}

static void queued_counted_up_to_a_limit(void **state)
{
	struct fixture *f = *state;
	struct store_count_queued bad = {.tenant = "acme"};
	struct uuid id;

	for (int i = 0; i < 5; i++)
		id = add_task(f);
	assert_int_equal(count_queued(f, "acme", 100), 5);
	assert_int_equal(count_queued(f, "acme", 5), 5);
	assert_int_equal(count_queued(f, "acme", 3), 3);
	assert_int_equal(count_queued(f, "other", 100), 0);
	(void)claim(f, &id);
	assert_int_equal(count_queued(f, "acme", 100), 4);
	assert_int_equal(RUN(count_queued, f, &bad), -EINVAL);
}

static void open_with_unknown_scheme_refused(void **state)
{
	static const char *const bad[] = {"", "nothing", "oracle:x", "sqlite", "memory:"};
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct store_config cfg = {.url = bad[i]};
		struct store *s = NULL;
		struct err e = {""};

		assert_int_equal(store_open(&f->loop, &cfg, &s, &e), -EINVAL);
		assert_null(s);
		assert_true(e.msg[0]);
	}
}

const struct CMUnitTest store_suite_tasks[] = {
	CASE(get_with_contents_returns_what_was_inserted),
	CASE(get_meta_leaves_contents_out),
	CASE(get_unknown_or_foreign_refused),
	CASE(insert_of_known_id_refused),
	CASE(insert_with_bad_fields_refused),
	CASE(insert_many_at_once_all_kept),
	CASE(insert_with_known_key_answers_earlier_task),
	CASE(insert_with_key_of_another_tenant_is_new),
	CASE(insert_with_expired_key_is_new),
	CASE(insert_with_key_of_pruned_task_is_new),
	CASE(insert_same_key_at_once_makes_one_task),
	CASE(list_pages_newest_first),
	CASE(list_filters_combine),
	CASE(list_leaves_outputs_out),
	CASE(list_with_bad_fields_refused),
	CASE(prune_removes_old_final_tasks_only),
	CASE(prune_keeps_to_its_limit),
	CASE(keys_added_listed_and_revoked),
	CASE(key_revoked_may_be_added_again),
	CASE(keys_forgotten_only_when_all_are_revoked),
	CASE(keys_many_all_listed),
	CASE(cancelled_request_did_all_or_nothing),
	CASE(cancelled_read_ends_once),
	CASE(close_finishes_what_was_asked),
	CASE(probe_writes_what_nobody_sees),
	CASE(tenants_set_listed_and_unset),
	CASE(queued_counted_up_to_a_limit),
	CASE(open_with_unknown_scheme_refused),
};
const size_t store_suite_tasks_count = ARRAY_SIZE(store_suite_tasks);
