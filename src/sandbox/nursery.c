/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/nursery.h"

#include "sandbox/host.h"
#include "sandbox/io.h"
#include "sandbox/keeper.h"
#include "sandbox/message.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { START_MS = 10000 };

struct nursery {
	struct sandbox_child keeper;
	struct nursery_options o;
	struct groups places[NURSERY_PLACES_MAX];
};

void nursery_place_name(unsigned int place, char name[static SANDBOX_GROUP_MAX])
{
	(void)snprintf(name, SANDBOX_GROUP_MAX, SANDBOX_GROUP_PREFIX "z%u", place);
}

/* The first is the keeper's own. */
unsigned int nursery_ids(unsigned int places, unsigned int boxes)
{
	return 1 + 2 * places * boxes;
}

static int hear(struct nursery *n, struct err *e)
{
	struct pollfd p = {.fd = n->keeper.sock, .events = POLLIN};
	char byte;
	int r = poll(&p, 1, START_MS);

	if (r == 0)
		return err_set(e, -ETIMEDOUT, "the keeper of interpreters did not answer");
	if (r < 0 || recv(n->keeper.sock, &byte, 1, 0) != 1)
		return err_set(e, -EPIPE, "the keeper of interpreters ended");
	return 0;
}

static int map_ids(struct nursery *n, struct err *e)
{
	char name[48], line[80];
	static const char *const maps[] = {"uid_map", "gid_map"};
	int r = 0;

	(void)snprintf(line, sizeof(line), "0 %u 1\n%u %u %u\n", n->o.uid_first, SANDBOX_UID_MIN,
		       n->o.uid_first + 1, nursery_ids(n->o.places, n->o.boxes) - 1);
	for (size_t i = 0; r >= 0 && i < ARRAY_SIZE(maps); i++) {
		(void)snprintf(name, sizeof(name), "/proc/%d/%s", n->keeper.pid, maps[i]);
		r = io_write_at(AT_FDCWD, name, line, 0);
	}
	if (r >= 0 && send(n->keeper.sock, "g", 1, MSG_NOSIGNAL) != 1)
		r = -errno;
	return r < 0 ? err_errno(e, r, "could not map the ids of interpreters") : 0;
}

static int enter(struct nursery *n, const int top[_SANDBOX_TREE_MAX], struct err *e)
{
	struct keeper_order order = {.type = KEEPER_ENTER, .maps = n->o.uid_first > 0};
	int fds[_SANDBOX_TREE_MAX], r;
	size_t count = 0;

	for (int i = 0; i < _SANDBOX_TREE_MAX; i++)
		if (top[i] >= 0)
			fds[count++] = top[i];
	r = message_send(n->keeper.sock, &order, sizeof(order), fds, count, 0);
	if (r < 0)
		return err_errno(e, r, "could not talk to the keeper of interpreters");
	if (order.maps) {
		r = hear(n, e);
		if (r == 0)
			r = map_ids(n, e);
	}
	return r < 0 ? r : hear(n, e);
}

int nursery_new(const struct nursery_options *o, const struct groups *groups,
		struct nursery **ret_nursery, struct err *e)
{
	AUTO(nursery_free) struct nursery *n = calloc(1, sizeof(*n));
	int top[_SANDBOX_TREE_MAX], r;

	if (!n)
		return err_set(e, -ENOMEM, "could not allocate the places of interpreters");
	n->keeper = SANDBOX_CHILD_NONE;
	n->o = *o;
	n->o.profile_fd = fcntl(o->profile_fd, F_DUPFD_CLOEXEC, 0);
	n->o.seccomp_fd = o->seccomp_fd < 0 ? -EBADF : fcntl(o->seccomp_fd, F_DUPFD_CLOEXEC, 0);
	for (unsigned int i = 0; i < NURSERY_PLACES_MAX; i++)
		for (int tree = 0; tree < _SANDBOX_TREE_MAX; tree++)
			n->places[i].own[tree] = n->places[i].parent[tree] = -EBADF;
	r = sandbox_child_start(&n->keeper, o->program, "keep", e);
	if (r < 0)
		return r;
	r = groups_nest(groups, n->keeper.pid, o->uid_first, o->places, top, n->places, e);
	if (r == 0)
		r = enter(n, top, e);
	for (int i = 0; i < _SANDBOX_TREE_MAX; i++)
		cleanup_close(&top[i]);
	if (r < 0)
		return r;
	*ret_nursery = TAKE_PTR(n);
	return 0;
}

void nursery_free(struct nursery *n)
{
	if (!n)
		return;
	sandbox_child_end(&n->keeper);
	for (unsigned int i = 0; i < n->o.places; i++)
		groups_close(&n->places[i]);
	cleanup_close(&n->o.profile_fd);
	cleanup_close(&n->o.seccomp_fd);
	free(n);
}

unsigned int nursery_places(const struct nursery *n)
{
	return n->o.places;
}

unsigned int nursery_boxes(const struct nursery *n)
{
	return n->o.boxes;
}

static int put_words(struct keeper_order *order, size_t *at, const char *const *words,
		     uint32_t *ret_count)
{
	for (; *words; words++) {
		size_t len = strlen(*words) + 1;

		if (len > sizeof(order->text) - *at || *ret_count == KEEPER_WORDS_MAX)
			return -E2BIG;
		memcpy(order->text + *at, *words, len);
		*at += len;
		++*ret_count;
	}
	return 0;
}

static int order_start(struct nursery *n, const char *const *argv, const char *const *envp,
		       int control, struct err *e)
{
	struct keeper_order order = {.type = KEEPER_START};
	size_t at = 0;
	int r = put_words(&order, &at, argv, &order.argc);

	if (r == 0)
		r = put_words(&order, &at, envp, &order.envc);
	if (r == 0)
		r = message_send(n->keeper.sock, &order, sizeof(order), &control, 1, MSG_DONTWAIT);
	return r < 0 ? err_errno(e, r, "could not start an interpreter") : 0;
}

int nursery_start(struct nursery *n, unsigned int place, const char *const *argv,
		  const char *const *envp, struct sandbox_client **ret_client, struct err *e)
{
	const struct sandbox_site where = {
		.groups = &n->places[place],
		/* As its namespace numbers them. */
		.uid_base = n->o.uid_first ? SANDBOX_UID_MIN + 2 * place * n->o.boxes : 0,
		.boxes = n->o.boxes,
		.profile_fd = n->o.profile_fd,
		.seccomp_fd = n->o.seccomp_fd,
	};
	AUTO_FD int theirs = -EBADF;
	int pair[2], r;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return err_errno(e, -errno, "could not make a socket pair");
	theirs = pair[1];
	r = order_start(n, argv, envp, theirs, e);
	if (r < 0) {
		(void)close(pair[0]);
		return r;
	}
	return sandbox_client_new_placed(pair[0], &where, ret_client, e);
}
