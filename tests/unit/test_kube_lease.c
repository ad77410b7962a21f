/* SPDX-License-Identifier: Apache-2.0 */

/* The election: records and time in, what to ask for out. */

#include "base/str.h"
#include "pods/kube/lease.h"
#include "unit.h"

#include <stdio.h>
#include <string.h>

static struct lease_record record(const char *holder, int version)
{
	struct lease_record r = {.duration_ms = LEASE_DURATION_MS, .transitions = 3};

	(void)str_copy(r.holder, sizeof r.holder, holder);
	(void)snprintf(r.version, sizeof r.version, "%d", version);
	return r;
}

static void lease_that_is_not_there_is_created(void **state)
{
	struct lease l;
	struct lease_record mine = record("me", 1);

	(void)state;
	lease_init(&l, "me");
	assert_int_equal(lease_next(&l, 0), LEASE_LOOK);
	lease_observe(&l, NULL, 0);
	assert_int_equal(lease_next(&l, 0), LEASE_CREATE);
	assert_false(lease_leads(&l, 0));
	lease_won(&l, &mine, 10, 20);
	assert_true(lease_leads(&l, 20));
	assert_int_equal(lease_next(&l, 20), LEASE_UPDATE);
}

static void lease_of_another_is_left_until_it_was_silent(void **state)
{
	struct lease l;
	struct lease_record r = record("other", 1);

	(void)state;
	lease_init(&l, "me");
	lease_observe(&l, &r, 0);
	lease_observe(&l, &r, 14999);
	assert_int_equal(lease_next(&l, 14999), LEASE_LOOK);
	(void)str_copy(r.version, sizeof r.version, "2");
	lease_observe(&l, &r, 15000);
	assert_int_equal(lease_next(&l, 29999), LEASE_LOOK);
	assert_int_equal(lease_next(&l, 30000), LEASE_UPDATE);
}

static void lease_that_was_let_go_is_free_at_once(void **state)
{
	struct lease l;
	struct lease_record r = record("", 1);

	(void)state;
	lease_init(&l, "me");
	lease_observe(&l, &r, 0);
	assert_int_equal(lease_next(&l, 0), LEASE_UPDATE);
}

static void leader_stops_before_others_begin(void **state)
{
	struct lease l;
	struct lease_record mine = record("me", 1);

	(void)state;
	lease_init(&l, "me");
	lease_observe(&l, NULL, 0);
	lease_won(&l, &mine, 0, 3000); /* the answer took three seconds */
	assert_true(lease_leads(&l, 9999));
	assert_false(lease_leads(&l, 10000));
}

static void leader_that_was_refused_stops_at_once(void **state)
{
	struct lease l;
	struct lease_record mine = record("me", 1), other = record("other", 2);

	(void)state;
	lease_init(&l, "me");
	lease_observe(&l, NULL, 0);
	lease_won(&l, &mine, 0, 0);
	lease_refused(&l);
	assert_false(lease_leads(&l, 1));
	assert_int_equal(lease_next(&l, 1), LEASE_LOOK);
	lease_observe(&l, &other, 2);
	assert_int_equal(lease_next(&l, 2), LEASE_LOOK);
}

static void record_is_written_and_read(void **state)
{
	struct lease l;
	struct lease_record r = record("other", 7), got;
	struct buf b;
	json_t *object;

	(void)state;
	lease_init(&l, "me");
	lease_observe(&l, &r, 0);
	buf_init(&b, 4096);
	lease_write(&l, "kiln-pods", INT64_C(1700000000123456), false, &b);
	object = json_loads(b.data, 0, NULL);
	assert_int_equal(lease_read(object, &got, NULL), 0);
	assert_string_equal(got.holder, "me");
	assert_string_equal(got.version, "7");
	assert_string_equal(got.acquired, "2023-11-14T22:13:20.123456Z");
	assert_int_equal(got.transitions, 4);
	assert_int_equal(got.duration_ms, 15000);
	json_decref(object);
	/* Renewed: when it was got, and how often it changed hands, stay. */
	lease_won(&l, &got, 0, 0);
	lease_write(&l, "kiln-pods", INT64_C(1800000000000000), false, &b);
	object = json_loads(b.data, 0, NULL);
	assert_int_equal(lease_read(object, &got, NULL), 0);
	assert_string_equal(got.acquired, "2023-11-14T22:13:20.123456Z");
	assert_int_equal(got.transitions, 4);
	json_decref(object);
	lease_write(&l, "kiln-pods", 0, true, &b);
	object = json_loads(b.data, 0, NULL);
	assert_int_equal(lease_read(object, &got, NULL), 0);
	assert_string_equal(got.holder, "");
	json_decref(object);
	buf_fini(&b);
}

static void record_without_a_version_is_none(void **state)
{
	struct lease_record got;
	json_t *object = json_loads("{\"spec\":{\"holderIdentity\":7}}", 0, NULL);

	(void)state;
	assert_true(lease_read(object, &got, NULL) < 0);
	json_decref(object);
}

/* Below n; xorshift64 (Marsaglia 2003), the same in every run. */
static uint32_t draw(uint32_t n)
{
	static uint64_t x = 88172645463325252;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return (uint32_t)(x % n);
}

enum { PEERS = 4 };

struct peer {
	struct lease lease;
	int64_t next_ms;
	/* A write or a look that is on its way, and when its answer comes. */
	enum lease_verb verb;
	bool asking, lost; /* lost: the answer never comes; the work may be done */
	char version[KUBE_VERSION_MAX];
	int64_t asked_ms, served_ms, answered_ms;
	bool served, won;
	struct lease_record answer;
};

struct server {
	struct lease_record record;
	bool exists;
	int version;
};

static void serve(struct server *s, struct peer *p)
{
	bool fits = p->verb == LEASE_CREATE ? !s->exists
					    : s->exists && str_eq(p->version, s->record.version);

	p->served = true;
	p->won = p->verb != LEASE_LOOK && fits;
	if (p->won) {
		s->record = record(p->lease.self, ++s->version);
		s->exists = true;
	}
	p->answer = s->record;
}

static void answer(struct peer *p, const struct server *s, int64_t now_ms)
{
	p->asking = false;
	if (p->lost)
		return;
	if (p->verb == LEASE_LOOK)
		lease_observe(&p->lease, s->exists ? &p->answer : NULL, now_ms);
	else if (p->won)
		lease_won(&p->lease, &p->answer, p->asked_ms, now_ms);
	else
		lease_refused(&p->lease);
}

static void ask(struct peer *p, int64_t now_ms)
{
	p->verb = lease_next(&p->lease, now_ms);
	p->asking = true;
	p->served = false;
	p->lost = draw(10) == 0;
	p->asked_ms = now_ms;
	p->served_ms = now_ms + draw(draw(8) ? 50 : 6000);
	p->answered_ms = p->served_ms + draw(draw(8) ? 50 : 6000);
	memcpy(p->version, p->lease.record.version, sizeof p->version);
	p->next_ms = now_ms + LEASE_RETRY_MS;
}

/* Slow answers, lost answers, processes that stand still: never two at one time. */
static void two_never_lead_together(void **state)
{
	struct server s = {.exists = false};
	struct peer peers[PEERS] = {0};
	int64_t led_ms = 0, changes = 0;
	int last = -1;

	(void)state;
	for (int i = 0; i < PEERS; i++) {
		char name[8];

		(void)snprintf(name, sizeof name, "p%d", i);
		lease_init(&peers[i].lease, name);
	}
	for (int64_t now = 0; now < 4000000; now += 10) {
		int leaders = 0;

		for (int i = 0; i < PEERS; i++) {
			struct peer *p = &peers[i];

			if (p->asking && !p->served && now >= p->served_ms)
				serve(&s, p);
			if (p->asking && now >= p->answered_ms)
				answer(p, &s, now);
			if (!p->asking && now >= p->next_ms)
				ask(p, now);
			if (draw(20000) == 0)
				p->next_ms = now + 40000; /* stands still */
			if (!lease_leads(&p->lease, now))
				continue;
			leaders++;
			changes += i != last;
			last = i;
		}
		assert_true(leaders <= 1);
		led_ms += leaders * 10;
	}
	assert_true(changes > 3);
	assert_true(led_ms > 4000000 / 2); /* and most of the time there is one */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lease_that_is_not_there_is_created),
		cmocka_unit_test(lease_of_another_is_left_until_it_was_silent),
		cmocka_unit_test(lease_that_was_let_go_is_free_at_once),
		cmocka_unit_test(leader_stops_before_others_begin),
		cmocka_unit_test(leader_that_was_refused_stops_at_once),
		cmocka_unit_test(record_is_written_and_read),
		cmocka_unit_test(record_without_a_version_is_none),
		cmocka_unit_test(two_never_lead_together),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
