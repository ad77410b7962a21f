/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/heard.h"

#include "base/clock.h"
#include "base/str.h"
#include "kiln.pb-c.h"

#include <errno.h>
#include <stdlib.h>

enum { FORGET_MS = 30000 };

struct heard {
	struct bus *bus;
	struct language_registry *languages;
	bool any;
	int64_t told_us[LANGUAGES_MAX]; /* monotonic: when it was last told to be installed */
};

static void note(struct heard *h, const Kiln__LanguageStatus *s, int64_t now_us)
{
	for (size_t i = 0; i < language_count(h->languages); i++) {
		struct language *l = language_at(h->languages, i);

		if (!str_eq(l->name, s->name))
			continue;
		h->any = true;
		if (!s->installed)
			return;
		h->told_us[i] = now_us;
		if (!l->installed ||
		    (*s->version && (!l->version || !str_eq(l->version, s->version))))
			(void)language_set_status(l, true, *s->version ? s->version : NULL);
		return;
	}
}

static void forget(struct heard *h, int64_t now_us)
{
	for (size_t i = 0; i < language_count(h->languages); i++) {
		struct language *l = language_at(h->languages, i);

		if (l->installed && now_us - h->told_us[i] > FORGET_MS * INT64_C(1000))
			(void)language_set_status(l, false, NULL);
	}
}

static void on_report(void *ctx, enum bus_topic topic, const struct uuid *id, const void *payload,
		      size_t len)
{
	struct heard *h = ctx;
	Kiln__LanguageReport *report = kiln__language_report__unpack(NULL, len, payload);
	int64_t now_us = clock_monotonic_us();

	(void)topic;
	(void)id;
	if (!report)
		return;
	for (size_t i = 0; i < report->n_languages; i++)
		note(h, report->languages[i], now_us);
	kiln__language_report__free_unpacked(report, NULL);
	if (h->any)
		forget(h, now_us);
}

int heard_new(struct bus *bus, struct language_registry *languages, struct heard **ret_heard)
{
	struct heard *h = calloc(1, sizeof *h);
	int r = h ? 0 : -ENOMEM;

	if (r == 0) {
		h->bus = bus;
		h->languages = languages;
		r = bus_subscribe(bus, BUS_LANGUAGES, on_report, h);
	}
	if (r < 0) {
		free(h);
		return r;
	}
	*ret_heard = h;
	return 0;
}

void heard_free(struct heard *h)
{
	if (!h)
		return;
	bus_unsubscribe(h->bus, BUS_LANGUAGES, on_report, h);
	free(h);
}

bool heard_any(const struct heard *h)
{
	return h->any;
}
