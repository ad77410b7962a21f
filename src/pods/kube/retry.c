/* SPDX-License-Identifier: Apache-2.0 */
#include "pods/kube/retry.h"

#include "json/reader.h"

#include <errno.h>

#define BUDGET_RESERVE 10.0
#define BUDGET_SHARE   0.2

void kube_budget_init(struct kube_budget *b)
{
	b->left = BUDGET_RESERVE;
}

void kube_budget_succeeded(struct kube_budget *b)
{
	b->left = b->left + BUDGET_SHARE < BUDGET_RESERVE ? b->left + BUDGET_SHARE : BUDGET_RESERVE;
}

/* 401 once: the token may just have been replaced. 404, 409, 410 and 422 are answers. */
static bool may_pass(const struct kube_outcome *o)
{
	if (o->code < 0)
		return o->code != -EMSGSIZE && o->code != -ECANCELED;
	switch (o->status) {
	case 401:
		return o->tries == 1;
	case 429:
	case 500:
	case 502:
	case 503:
	case 504:
		return true;
	default:
		return false;
	}
}

int64_t kube_retry_ms(const struct kube_outcome *o, struct kube_budget *b, uint32_t spread)
{
	int64_t wait_ms = (int64_t)KUBE_RETRY_MIN_MS << (o->tries < 16 ? o->tries - 1 : 15);

	if (o->tries >= KUBE_TRIES_MAX || !may_pass(o) || b->left < 1)
		return -1;
	b->left -= 1;
	if (wait_ms > KUBE_RETRY_MAX_MS)
		wait_ms = KUBE_RETRY_MAX_MS;
	if (o->code == 0 && o->retry_after_ms > wait_ms)
		wait_ms = o->retry_after_ms < KUBE_RETRY_AFTER_MAX_MS ? o->retry_after_ms
								      : KUBE_RETRY_AFTER_MAX_MS;
	/* Later by up to a quarter, never sooner than was asked for. */
	return wait_ms + wait_ms * spread / 4000;
}

static int errno_of(int status)
{
	switch (status) {
	case 400:
	case 422:
		return -EINVAL;
	case 401:
	case 403:
		return -EPERM;
	case 404:
		return -ENOENT;
	case 409:
		return -EEXIST;
	case 410:
		return -ESTALE;
	case 429:
		return -EBUSY;
	default:
		return -EIO;
	}
}

int kube_status_code(int status, const char *body, size_t len, struct err *e)
{
	static const struct json_bounds bounds = {.depth = 16, .values = 4096};
	AUTO(json_cleanup) json_t *object = NULL;
	const char *message;
	int r = errno_of(status);

	if (status >= 200 && status < 300)
		return 0;
	if (json_decode(body, len, &bounds, &object, NULL) < 0)
		object = NULL;
	message = json_string_value(json_object_get(object, "message"));
	return err_set(e, r, "the API server answered %d%s%.300s", status, message ? ": " : "",
		       message ? message : "");
}
