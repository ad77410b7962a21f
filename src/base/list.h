/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Intrusive doubly linked list, circular with a head. A node that is in no list points at itself,
 * so that unlinking twice is harmless. Nothing is allocated; the objects' owner stays their owner.
 */

#include "base/cleanup.h"

#include <stdbool.h>

struct list {
	struct list *next, *prev;
};

static inline void list_init(struct list *l)
{
	l->next = l->prev = l;
}

static inline bool list_empty(const struct list *l)
{
	return l->next == l;
}

static inline void list_insert_before(struct list *at, struct list *node)
{
	node->next = at;
	node->prev = at->prev;
	at->prev->next = node;
	at->prev = node;
}

static inline void list_push_back(struct list *head, struct list *node)
{
	list_insert_before(head, node);
}

static inline void list_push_front(struct list *head, struct list *node)
{
	list_insert_before(head->next, node);
}

static inline void list_unlink(struct list *node)
{
	node->prev->next = node->next;
	node->next->prev = node->prev;
	list_init(node);
}

/* Moves all of "from" to the end of "to". */
static inline void list_move_all(struct list *to, struct list *from)
{
	if (list_empty(from))
		return;
	from->next->prev = to->prev;
	to->prev->next = from->next;
	from->prev->next = to;
	to->prev = from->prev;
	list_init(from);
}

/* The first object, which stays linked; NULL when the list is empty. */
#define LIST_FIRST(head, type, member)                                                             \
	(list_empty(head) ? NULL : container_of((head)->next, type, member))

#define LIST_FOREACH(it, head, member)                                                             \
	for (it = container_of((head)->next, __typeof__(*it), member); &it->member != (head);      \
	     it = container_of(it->member.next, __typeof__(*it), member))

/* As LIST_FOREACH; the body may unlink and free "it". */
#define LIST_FOREACH_SAFE(it, tmp, head, member)                                                   \
	for (it = container_of((head)->next, __typeof__(*it), member),                             \
	    tmp = container_of(it->member.next, __typeof__(*it), member);                          \
	     &it->member != (head);                                                                \
	     it = tmp, tmp = container_of(it->member.next, __typeof__(*it), member))
