/* SPDX-License-Identifier: Apache-2.0 */
#include "scheduler/choice.h"

#include "base/map.h"
#include "scheduler/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
	POINTS = 8,	 /* of a runner on the ring, so that shares are about equal */
	RING_STEPS = 64, /* before another is taken whose cache knows the program not */
};

struct point {
	uint64_t at;
	struct runner *runner;
};

struct choice_group {
	struct choice_group *next;
	struct list levels[CHOICE_LEVELS + 1];
	struct point *ring; /* by at */
	size_t n_points, n_runners;
	size_t free;  /* runners in lists */
	size_t slots; /* of those that take tasks */
	bool languages[];
};

struct choice {
	size_t n_languages;
	struct choice_group *groups;
	size_t free;
};

/* ---- groups ---- */

int choice_new(size_t languages, struct choice **ret_choice)
{
	struct choice *c = calloc(1, sizeof *c);

	if (!c)
		return -ENOMEM;
	c->n_languages = languages;
	*ret_choice = c;
	return 0;
}

static void free_group(struct choice_group *g)
{
	free(g->ring);
	free(g);
}

void choice_free(struct choice *c)
{
	if (!c)
		return;
	while (c->groups) {
		struct choice_group *g = c->groups;

		c->groups = g->next;
		free_group(g);
	}
	free(c);
}

static struct choice_group *find_group(struct choice *c, const bool *languages)
{
	struct choice_group *g = c->groups;

	while (g && memcmp(g->languages, languages, c->n_languages * sizeof *languages) != 0)
		g = g->next;
	if (g)
		return g;
	g = calloc(1, sizeof *g + c->n_languages * sizeof *languages);
	if (!g)
		return NULL;
	memcpy(g->languages, languages, c->n_languages * sizeof *languages);
	for (size_t i = 0; i <= CHOICE_LEVELS; i++)
		list_init(&g->levels[i]);
	g->next = c->groups;
	c->groups = g;
	return g;
}

static void drop_group(struct choice *c, struct choice_group *g)
{
	struct choice_group **at = &c->groups;

	while (*at != g)
		at = &(*at)->next;
	*at = g->next;
	free_group(g);
}

/* ---- the ring ---- */

static uint64_t point_of(const struct runner *r, uint64_t number)
{
	const uint64_t seed[2] = {0x6b696c6e, number};

	return map_hash(seed, r->pod, strlen(r->pod));
}

/* The first point that is not before at. */
static size_t find_point(const struct choice_group *g, uint64_t at)
{
	size_t low = 0, high = g->n_points;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (g->ring[middle].at < at)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static int ring_add(struct choice_group *g, struct runner *r)
{
	struct point *grown = realloc(g->ring, (g->n_points + POINTS) * sizeof *grown);

	if (!grown)
		return -ENOMEM;
	g->ring = grown;
	for (uint64_t i = 0; i < POINTS; i++) {
		uint64_t at = point_of(r, i);
		size_t index = find_point(g, at);

		memmove(&g->ring[index + 1], &g->ring[index],
			(g->n_points - index) * sizeof *g->ring);
		g->ring[index] = (struct point){.at = at, .runner = r};
		g->n_points++;
	}
	return 0;
}

static void ring_remove(struct choice_group *g, const struct runner *r)
{
	size_t kept = 0;

	for (size_t i = 0; i < g->n_points; i++)
		if (g->ring[i].runner != r)
			g->ring[kept++] = g->ring[i];
	g->n_points = kept;
}

static uint64_t hash_program(const struct task_spec *spec)
{
	uint64_t h = 0;

	for (size_t i = 0; i < spec->program.n_files; i++) {
		const struct bytes *b = &spec->program.files[i].content;
		const uint64_t chained[2] = {h, i};

		h = map_hash(chained, b->data ? b->data : "", b->len);
	}
	return h;
}

/* The next on the ring that can take it; better one that does not look full. */
static struct runner *find_on_ring(const struct choice_group *g, uint64_t program)
{
	size_t index = find_point(g, program), steps = g->n_points;
	struct runner *full = NULL;

	if (steps > RING_STEPS)
		steps = RING_STEPS;
	for (size_t i = 0; i < steps; i++, index++) {
		struct runner *r = g->ring[index % g->n_points].runner;

		if (r->place.level >= 0 && r->place.level < CHOICE_LEVELS)
			return r;
		if (!full && r->place.level == CHOICE_LEVELS)
			full = r;
	}
	return full;
}

/* ---- runners ---- */

static bool takes_tasks(const struct runner *r)
{
	return r->greeted && !r->draining;
}

/* By the slots that are taken, by whomever. What others have is as old as the last heartbeat: it
 * says whom to ask first, and the runner's own answer says the rest. */
static int level_of(const struct runner *r)
{
	unsigned load = r->busy + r->others;

	if (!takes_tasks(r) || r->full || r->busy >= r->slots)
		return -1;
	return load >= r->slots ? CHOICE_LEVELS : (int)(load * CHOICE_LEVELS / r->slots);
}

static void place(struct choice *c, struct runner *r, int level)
{
	struct choice_place *p = &r->place;

	if (p->level >= 0) {
		list_unlink(&p->link);
		p->group->free--;
		c->free--;
	}
	p->level = level;
	if (level >= 0) {
		list_push_front(&p->group->levels[level], &p->link);
		p->group->free++;
		c->free++;
	}
}

int choice_add(struct choice *c, struct runner *r)
{
	struct choice_group *g = find_group(c, r->languages);
	int code = g ? ring_add(g, r) : -ENOMEM;

	if (code < 0) {
		if (g && !g->n_runners)
			drop_group(c, g);
		return code;
	}
	g->n_runners++;
	r->place = (struct choice_place){.group = g, .level = -1};
	list_init(&r->place.link);
	choice_update(c, r);
	return 0;
}

void choice_remove(struct choice *c, struct runner *r)
{
	struct choice_group *g = r->place.group;

	if (!g)
		return;
	place(c, r, -1);
	g->slots -= r->place.slots;
	ring_remove(g, r);
	r->place.group = NULL;
	if (--g->n_runners == 0)
		drop_group(c, g);
}

void choice_update(struct choice *c, struct runner *r)
{
	struct choice_place *p = &r->place;
	unsigned slots = takes_tasks(r) ? r->slots : 0;
	int level = level_of(r);

	if (!p->group)
		return;
	p->group->slots += slots;
	p->group->slots -= p->slots;
	p->slots = slots;
	if (level != p->level)
		place(c, r, level);
}

/* ---- questions ---- */

bool choice_any(const struct choice *c)
{
	return c->free > 0;
}

bool choice_can_run(const struct choice *c, size_t language)
{
	for (const struct choice_group *g = c->groups; g; g = g->next)
		if (g->free && g->languages[language])
			return true;
	return false;
}

size_t choice_slots(const struct choice *c, size_t language)
{
	size_t slots = 0;

	for (const struct choice_group *g = c->groups; g; g = g->next)
		slots += g->languages[language] ? g->slots : 0;
	return slots;
}

bool choice_has(const struct choice *c, size_t language)
{
	for (const struct choice_group *g = c->groups; g; g = g->next)
		if (g->languages[language])
			return true;
	return false;
}

static struct runner *find_idlest(const struct choice_group *g, int *level)
{
	for (int i = 0; i < *level; i++) {
		struct choice_place *p = LIST_FIRST(&g->levels[i], struct choice_place, link);

		if (!p)
			continue;
		*level = i;
		return container_of(p, struct runner, place);
	}
	return NULL;
}

struct runner *choice_find(const struct choice *c, size_t language, const struct task_spec *spec)
{
	const uint64_t program = spec ? hash_program(spec) : 0;
	struct runner *best = NULL;
	int level = CHOICE_LEVELS + 1;

	for (const struct choice_group *g = c->groups; g; g = g->next) {
		struct runner *r;

		if (!g->free || !g->languages[language])
			continue;
		r = spec ? find_on_ring(g, program) : NULL;
		if (r && r->place.level < CHOICE_LEVELS)
			return r;
		r = find_idlest(g, &level);
		best = r ? r : best;
	}
	return best;
}
