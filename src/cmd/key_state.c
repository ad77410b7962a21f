/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/key_state.h"

#include "store/access.h"

#include <stdlib.h>

struct reading {
	struct store_key_list list;
	bool done;
	int code;
};

static void on_keys(struct store_req *req, int code)
{
	struct reading *r = req->ctx;

	r->done = true;
	r->code = code;
}

int key_state_read(uv_loop_t *loop, struct store *store, enum key_state *ret_state, struct err *e)
{
	struct reading r = {.list = {.req = {.done = on_keys, .ctx = &r}}};
	enum key_state state;

	store_key_list(store, &r.list);
	while (!r.done)
		(void)uv_run(loop, UV_RUN_ONCE);
	if (r.code < 0)
		return err_errno(e, r.code, "could not read the keys");
	state = r.list.n ? KEYS_REVOKED : KEYS_NONE;
	for (size_t i = 0; i < r.list.n; i++)
		if (!r.list.keys[i].revoked_us)
			state = KEYS_NEEDED;
	free(r.list.keys);
	*ret_state = state;
	return 0;
}
