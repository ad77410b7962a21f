/* SPDX-License-Identifier: Apache-2.0 */
#include "scheduler/lanes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { LANGUAGES = 3 };

struct item {
	struct lane_item lane;
	size_t language;
	enum task_class class;
	int number;
};

static const unsigned weights[_TASK_CLASS_MAX] = {8, 4, 1};

static bool any(void *ctx, size_t language)
{
	(void)ctx;
	(void)language;
	return true;
}

static bool only(void *ctx, size_t language)
{
	return *(const size_t *)ctx == language;
}

static size_t running_max; /* of tenants, as long as "special" is not meant */
static size_t special_max;

static size_t limit_of(void *ctx, const char *tenant)
{
	(void)ctx;
	return strcmp(tenant, "special") == 0 ? special_max : running_max;
}

static struct lanes *new_lanes_of_at_most(size_t max)
{
	struct lanes *l = NULL;

	running_max = special_max = max;
	assert_int_equal(lanes_new(LANGUAGES, weights, &(struct lanes_limit){limit_of, NULL}, &l),
			 0);
	return l;
}

static struct lanes *new_lanes(void)
{
	return new_lanes_of_at_most(0);
}

static void push_for(struct lanes *l, struct item *it, const char *tenant, size_t language,
		     enum task_class class, int number)
{
	*it = (struct item){.language = language, .class = class, .number = number};
	assert_int_equal(lanes_enter(l, tenant, language, class, &it->lane), 0);
	lanes_push(l, &it->lane);
}

static void push(struct lanes *l, struct item *it, size_t language, enum task_class class,
		 int number)
{
	push_for(l, it, "default", language, class, number);
}

static struct item *take(struct lanes *l, bool (*may_run)(void *, size_t), void *ctx)
{
	struct lane_item *i = lanes_take(l, may_run, ctx);

	return i ? container_of(i, struct item, lane) : NULL;
}

/* All items leave, those that wait too. */
static void end(struct lanes *l, struct item *items, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (!list_empty(&items[i].lane.link))
			lanes_remove(l, &items[i].lane);
		lanes_leave(l, &items[i].lane);
	}
	assert_int_equal(lanes_count(l), 0);
	lanes_free(l);
}

static void lanes_empty_gives_nothing(void **state)
{
	struct lanes *l = new_lanes();

	(void)state;
	assert_null(take(l, any, NULL));
	assert_int_equal(lanes_count(l), 0);
	lanes_free(l);
}

static void lanes_one_lane_is_first_in_first_out(void **state)
{
	struct lanes *l = new_lanes();
	struct item items[5];

	(void)state;
	for (int i = 0; i < 5; i++)
		push(l, &items[i], 1, TASK_CLASS_NORMAL, i);
	for (int i = 0; i < 5; i++)
		assert_int_equal(take(l, any, NULL)->number, i);
	end(l, items, 5);
}

static void lanes_classes_share_by_weight(void **state)
{
	enum { EACH = 1300 };
	struct lanes *l = new_lanes();
	struct item *items = calloc(EACH * _TASK_CLASS_MAX, sizeof *items);
	int got[_TASK_CLASS_MAX] = {0};

	(void)state;
	assert_non_null(items);
	for (int i = 0; i < EACH * _TASK_CLASS_MAX; i++)
		push(l, &items[i], 0, (enum task_class)(i % _TASK_CLASS_MAX), i);
	for (int i = 0; i < 1300; i++)
		got[take(l, any, NULL)->class]++;
	assert_in_range(got[TASK_CLASS_HIGH], 798, 802);
	assert_in_range(got[TASK_CLASS_NORMAL], 398, 402);
	assert_in_range(got[TASK_CLASS_LOW], 98, 102);
	end(l, items, EACH * _TASK_CLASS_MAX);
	free(items);
}

static void lanes_class_that_was_empty_saves_up_no_credit(void **state)
{
	enum { N = 400 };
	struct lanes *l = new_lanes();
	struct item *items = calloc(2 * N, sizeof *items);
	int high = 0;

	(void)state;
	assert_non_null(items);
	for (int i = 0; i < N; i++)
		push(l, &items[i], 0, TASK_CLASS_HIGH, i);
	for (int i = 0; i < N / 2; i++)
		(void)take(l, any, NULL);
	/* Low comes late: had it saved its turns, the next ones would all be its own. */
	for (int i = N; i < 2 * N; i++)
		push(l, &items[i], 0, TASK_CLASS_LOW, i);
	for (int i = 0; i < 90; i++)
		high += take(l, any, NULL)->class == TASK_CLASS_HIGH;
	assert_in_range(high, 78, 82);
	end(l, items, 2 * N);
	free(items);
}

static void lanes_languages_take_turns(void **state)
{
	struct lanes *l = new_lanes();
	struct item items[30];
	int got[LANGUAGES] = {0};

	(void)state;
	for (int i = 0; i < 20; i++)
		push(l, &items[i], 0, TASK_CLASS_NORMAL, i);
	for (int i = 20; i < 30; i++)
		push(l, &items[i], 2, TASK_CLASS_NORMAL, i);
	for (int i = 0; i < 10; i++)
		got[take(l, any, NULL)->language]++;
	assert_int_equal(got[0], 5);
	assert_int_equal(got[2], 5);
	end(l, items, 30);
}

static void lanes_language_that_cannot_run_is_passed_over(void **state)
{
	struct lanes *l = new_lanes();
	struct item items[2];
	size_t language = 2;

	(void)state;
	push(l, &items[0], 0, TASK_CLASS_HIGH, 0);
	push(l, &items[1], 2, TASK_CLASS_LOW, 1);
	assert_int_equal(take(l, only, &language)->number, 1);
	assert_null(take(l, only, &language));
	assert_int_equal(lanes_count(l), 1);
	end(l, items, 2);
}

static void lanes_push_front_goes_first(void **state)
{
	struct lanes *l = new_lanes();
	struct item items[3];
	struct item *it;

	(void)state;
	for (int i = 0; i < 3; i++)
		push(l, &items[i], 0, TASK_CLASS_NORMAL, i);
	it = take(l, any, NULL);
	lanes_push_front(l, &it->lane);
	assert_int_equal(take(l, any, NULL)->number, 0);
	end(l, items, 3);
}

static void lanes_removed_item_is_not_taken(void **state)
{
	struct lanes *l = new_lanes();
	struct item items[2];

	(void)state;
	push(l, &items[0], 0, TASK_CLASS_LOW, 0);
	push(l, &items[1], 0, TASK_CLASS_LOW, 1);
	lanes_remove(l, &items[0].lane);
	assert_int_equal(take(l, any, NULL)->number, 1);
	assert_null(take(l, any, NULL));
	end(l, items, 2);
}

static void lanes_tenants_take_turns(void **state)
{
	enum { MANY = 1000 };
	struct lanes *l = new_lanes();
	struct item *items = calloc(MANY + 3, sizeof *items);

	(void)state;
	assert_non_null(items);
	for (int i = 0; i < MANY; i++)
		push_for(l, &items[i], "many", 0, TASK_CLASS_NORMAL, i);
	for (int i = MANY; i < MANY + 3; i++)
		push_for(l, &items[i], "few", 0, TASK_CLASS_NORMAL, i);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(take(l, any, NULL)->number, i);
		assert_int_equal(take(l, any, NULL)->number, MANY + i);
	}
	assert_int_equal(take(l, any, NULL)->number, 3);
	/* Who comes late is next after those whose turn it is. */
	lanes_leave(l, &items[MANY].lane);
	push_for(l, &items[MANY], "late", 0, TASK_CLASS_NORMAL, -1);
	assert_int_equal(take(l, any, NULL)->number, 4);
	assert_int_equal(take(l, any, NULL)->number, -1);
	end(l, items, MANY + 3);
	free(items);
}

static void lanes_tenant_at_its_bound_is_passed_over(void **state)
{
	struct lanes *l = new_lanes_of_at_most(2);
	struct item items[6];

	(void)state;
	for (int i = 0; i < 5; i++)
		push_for(l, &items[i], "many", (size_t)i % 2, TASK_CLASS_HIGH, i);
	for (int i = 0; i < 2; i++) {
		struct item *it = take(l, any, NULL);

		assert_int_equal(it->number, i);
		lanes_started(&it->lane);
		lanes_started(&it->lane); /* is counted once */
	}
	push_for(l, &items[5], "few", 0, TASK_CLASS_LOW, 5);
	assert_int_equal(take(l, any, NULL)->number, 5);
	assert_null(take(l, any, NULL));
	lanes_ended(&items[0].lane);
	lanes_ended(&items[0].lane);
	assert_int_equal(take(l, any, NULL)->number, 2);
	lanes_started(&items[2].lane);
	assert_null(take(l, any, NULL));
	lanes_leave(l, &items[1].lane); /* ends it too */
	assert_int_equal(take(l, any, NULL)->number, 3);
	assert_int_equal(lanes_count(l), 1);
	end(l, items, 6);
}

static void limit_of_one_tenant_can_change(void **state)
{
	struct lanes *l = new_lanes_of_at_most(1);
	struct item it[4];

	(void)state;
	for (int i = 0; i < 4; i++)
		push_for(l, &it[i], i < 2 ? "special" : "other", 0, TASK_CLASS_NORMAL, i);
	for (int i = 0; i < 2; i++)
		lanes_started(lanes_take(l, any, NULL));
	assert_null(lanes_take(l, any, NULL));
	special_max = 2;
	assert_null(lanes_take(l, any, NULL));
	lanes_refresh(l);
	assert_ptr_equal(lanes_take(l, any, NULL), &it[1].lane);
	lanes_started(&it[1].lane);
	assert_null(lanes_take(l, any, NULL));
	lanes_remove(l, &it[3].lane);
	for (int i = 0; i < 4; i++)
		lanes_leave(l, &it[i].lane);
	lanes_free(l);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lanes_empty_gives_nothing),
		cmocka_unit_test(lanes_one_lane_is_first_in_first_out),
		cmocka_unit_test(lanes_classes_share_by_weight),
		cmocka_unit_test(lanes_class_that_was_empty_saves_up_no_credit),
		cmocka_unit_test(lanes_languages_take_turns),
		cmocka_unit_test(lanes_language_that_cannot_run_is_passed_over),
		cmocka_unit_test(lanes_push_front_goes_first),
		cmocka_unit_test(lanes_removed_item_is_not_taken),
		cmocka_unit_test(lanes_tenants_take_turns),
		cmocka_unit_test(lanes_tenant_at_its_bound_is_passed_over),
		cmocka_unit_test(limit_of_one_tenant_can_change),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
