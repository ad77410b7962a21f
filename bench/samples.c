/* SPDX-License-Identifier: Apache-2.0 */
#include "samples.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

int64_t now_ns(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

void samples_fini(struct samples *s)
{
	free(s->ns);
	*s = (struct samples){0};
}

int samples_add(struct samples *s, int64_t ns)
{
	if (s->n == s->cap) {
		size_t cap = s->cap ? s->cap * 2 : 4096;
		int64_t *grown = reallocarray(s->ns, cap, sizeof *grown);

		if (!grown)
			return -ENOMEM;
		s->ns = grown;
		s->cap = cap;
	}
	s->ns[s->n++] = ns;
	return 0;
}

static int compare(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return (x > y) - (x < y);
}

/* The smallest sample that at least this share of all samples does not pass. */
static double percentile_ms(const struct samples *s, unsigned permille)
{
	size_t rank = (s->n * permille + 999) / 1000;

	return s->n ? (double)s->ns[rank ? rank - 1 : 0] / 1e6 : 0;
}

void samples_print(struct samples *s, FILE *f)
{
	double sum = 0;

	if (s->n)
		qsort(s->ns, s->n, sizeof *s->ns, compare);
	for (size_t i = 0; i < s->n; i++)
		sum += (double)s->ns[i];
	(void)fprintf(f,
		      "\"n\": %zu, \"mean_ms\": %.4f, \"p50_ms\": %.4f, \"p95_ms\": %.4f, "
		      "\"p99_ms\": %.4f, \"max_ms\": %.4f",
		      s->n, s->n ? sum / (double)s->n / 1e6 : 0, percentile_ms(s, 500),
		      percentile_ms(s, 950), percentile_ms(s, 990), percentile_ms(s, 1000));
}
