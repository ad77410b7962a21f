/* SPDX-License-Identifier: Apache-2.0 */

/* The machines that pods are on, where this manager may see them: what is said of a node holds for
 * all pods that are there. */

#include "base/str.h"
#include "pods/kube/plan-private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* A node that is known. One that is gone is forgotten, once its pods have been told. */
struct plan_node {
	char name[KUBE_NODE_MAX];
	enum plan_node_state state;
	uint64_t generation; /* of the last list that had it */
};

static struct plan_node *find_node(const struct plan *p, const char *name)
{
	return *name ? map_get(&p->nodes, name, strlen(name)) : NULL;
}

static enum plan_node_state state_of(const struct kube_node *facts)
{
	if (facts->deleting || !facts->ready)
		return PLAN_NODE_NOT_READY;
	return facts->unschedulable ? PLAN_NODE_CORDONED : PLAN_NODE_FINE;
}

static void tell_pods(struct plan *p, const char *node, enum plan_node_state state)
{
	struct plan_pod *pod;
	size_t cursor;

	MAP_FOREACH (pod, cursor, &p->pods)
		if (str_eq(pod->facts.node, node))
			pod->node = state;
}

int plan_node_seen(struct plan *p, const struct kube_node *facts)
{
	struct plan_node *node = find_node(p, facts->name);
	enum plan_node_state before = node ? node->state : PLAN_NODE_FINE;

	if (!node) {
		node = calloc(1, sizeof *node);
		if (!node)
			return -ENOMEM;
		(void)str_copy(node->name, sizeof node->name, facts->name);
		if (map_put(&p->nodes, node->name, strlen(node->name), node) < 0) {
			free(node);
			return -ENOMEM;
		}
	}
	node->state = state_of(facts);
	node->generation = p->node_generation;
	if (node->state != before)
		tell_pods(p, node->name, node->state);
	return node->state != before;
}

static void forget_node(struct plan *p, struct plan_node *node)
{
	tell_pods(p, node->name, PLAN_NODE_GONE);
	(void)map_remove(&p->nodes, node->name, strlen(node->name));
	free(node);
}

void plan_node_gone(struct plan *p, const char *name)
{
	struct plan_node *node = find_node(p, name);

	if (node)
		forget_node(p, node);
}

void plan_nodes_begin(struct plan *p)
{
	p->node_generation++;
}

/* One at a time, since the map must not change below a walk. */
static struct plan_node *find_old(const struct plan *p)
{
	struct plan_node *node;
	size_t cursor;

	MAP_FOREACH (node, cursor, &p->nodes)
		if (node->generation != p->node_generation)
			return node;
	return NULL;
}

void plan_nodes_listed(struct plan *p)
{
	struct plan_node *node;

	while ((node = find_old(p)))
		forget_node(p, node);
}

void plan_nodes_fini(struct plan *p)
{
	struct plan_node *node;
	size_t cursor;

	MAP_FOREACH (node, cursor, &p->nodes)
		free(node);
	map_fini(&p->nodes);
}

/* A node that was never seen says nothing: it may be new, or not for us to see. */
void plan_place_pod(const struct plan *p, struct plan_pod *pod)
{
	const struct plan_node *node = find_node(p, pod->facts.node);

	if (node)
		pod->node = node->state;
}

const char *plan_node_trouble(const struct plan_pod *pod)
{
	static const char *const words[] = {
		[PLAN_NODE_FINE] = NULL,
		[PLAN_NODE_CORDONED] = "node_cordoned",
		[PLAN_NODE_NOT_READY] = "node_not_ready",
		[PLAN_NODE_GONE] = "node_gone",
	};

	return words[pod->node];
}
