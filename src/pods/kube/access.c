/* SPDX-License-Identifier: Apache-2.0 */
#include "pods/kube/access.h"

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/fs.h"
#include "base/str.h"
#include "base/url.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ACCOUNT_DIR "/var/run/secrets/kubernetes.io/serviceaccount"

enum { TOKEN_FRESH_MS = 60 * 1000, OPTION_MAX = 64, MAX_PODS_MAX = 100000 };

bool kube_is_name(const char *text, size_t max)
{
	size_t len = strlen(text);

	if (!len || len > max || text[0] == '-' || text[len - 1] == '-')
		return false;
	return strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789-") == len;
}

/* ---- the URL ---- */

struct option_def {
	const char *name;
	size_t offset, size; /* of the text in struct kube_access; size 0: max_pods */
};

static const struct option_def option_defs[] = {
	{"server", offsetof(struct kube_access, server), KUBE_SERVER_MAX},
	{"ca", offsetof(struct kube_access, ca_file), PATH_MAX},
	{"token", offsetof(struct kube_access, token_file), PATH_MAX},
	{"max_pods", 0, 0},
};

static int set_max_pods(struct kube_access *a, const char *value, size_t len, struct err *e)
{
	char text[16];
	uint64_t n;

	if (url_decode(value, len, text, sizeof text) < 0 ||
	    str_to_u64(text, 1, MAX_PODS_MAX, &n) < 0)
		return err_set(e, -EINVAL, "max_pods must be a number from 1 to %d", MAX_PODS_MAX);
	a->max_pods = (uint32_t)n;
	return 0;
}

static int set_option(struct kube_access *a, const char *option, size_t len, struct err *e)
{
	const char *value = memchr(option, '=', len);
	size_t name_len = value ? (size_t)(value - option) : len;

	for (size_t i = 0; value && i < ARRAY_SIZE(option_defs); i++) {
		const struct option_def *d = &option_defs[i];
		size_t value_len = len - name_len - 1;

		if (strlen(d->name) != name_len || memcmp(d->name, option, name_len) != 0)
			continue;
		if (!d->size)
			return set_max_pods(a, value + 1, value_len, e);
		if (url_decode(value + 1, value_len, (char *)a + d->offset, d->size) < 0)
			return err_set(e, -EINVAL, "\"%.*s\" cannot be read, or is too long",
				       (int)len, option);
		return 0;
	}
	return err_set(e, -EINVAL,
		       "\"%.*s\" is no option of kubernetes:, expected server=, ca=, token= or "
		       "max_pods=",
		       (int)len, option);
}

static int set_namespace(struct kube_access *a, const char *rest, size_t len, struct err *e)
{
	char text[KUBE_NAME_MAX] = "";

	if (len < sizeof text)
		memcpy(text, rest, len);
	if (!kube_is_name(text, sizeof text - 1))
		return err_set(e, -EINVAL,
			       "\"%.*s\" is no namespace, expected kubernetes:NAMESPACE", (int)len,
			       rest);
	memcpy(a->namespace, text, sizeof text);
	return 0;
}

/* What the kubelet has put into every pod that has a service account. */
static int set_in_cluster(struct kube_access *a, const char *host, const char *port, struct err *e)
{
	bool v6;
	int n;

	if (!host || !*host || !port || !*port)
		return err_set(e, -EINVAL,
			       "this is no pod of Kubernetes: name the API server with "
			       "kubernetes:%s?server=URL&ca=FILE&token=FILE",
			       a->namespace);
	v6 = strchr(host, ':') && host[0] != '[';
	n = snprintf(a->server, sizeof a->server, v6 ? "https://[%s]:%s" : "https://%s:%s", host,
		     port);
	if (n < 0 || (size_t)n >= sizeof a->server)
		return err_set(e, -EINVAL, "the address of the API server is too long");
	if (!*a->ca_file)
		(void)str_copy(a->ca_file, sizeof a->ca_file, ACCOUNT_DIR "/ca.crt");
	if (!*a->token_file)
		(void)str_copy(a->token_file, sizeof a->token_file, ACCOUNT_DIR "/token");
	return 0;
}

static int check_server(struct kube_access *a, struct err *e)
{
	size_t len = strlen(a->server);

	while (len && a->server[len - 1] == '/')
		a->server[--len] = '\0';
	if (!str_has_prefix(a->server, "https://") && !str_has_prefix(a->server, "http://"))
		return err_set(e, -EINVAL, "\"%s\" is no API server, expected https://HOST:PORT",
			       a->server);
	return 0;
}

int kube_access_parse(const char *rest, const char *host, const char *port,
		      struct kube_access *ret_access, struct err *e)
{
	AUTO_FREE struct kube_access *a = calloc(1, sizeof *a);
	size_t len = strcspn(rest, "?");
	int r = a ? set_namespace(a, rest, len, e) : err_set(e, -ENOMEM, "out of memory");

	rest += len;
	while (r == 0 && *rest) {
		rest++; /* "?" or "&" */
		len = strcspn(rest, "&");
		r = set_option(a, rest, len, e);
		rest += len;
	}
	if (r == 0 && !*a->server)
		r = set_in_cluster(a, host, port, e);
	if (r == 0)
		r = check_server(a, e);
	if (r == 0)
		*ret_access = *a;
	return r;
}

/* ---- the token ---- */

static int read_token(struct kube_token *t, const char *file, struct err *e)
{
	CLEANUP(buf_fini) struct buf b;
	size_t len;
	char *header;
	int r;

	buf_init(&b, KUBE_TOKEN_MAX);
	r = fs_read_file(AT_FDCWD, file, &b, e);
	if (r < 0)
		return r;
	len = strcspn(b.data, "\r\n");
	if (!len)
		return err_set(e, -EINVAL, "\"%s\" has no token in it", file);
	if (asprintf(&header, "Authorization: Bearer %.*s", (int)len, b.data) < 0)
		return err_set(e, -ENOMEM, "out of memory");
	kube_token_fini(t);
	t->header = header;
	explicit_bzero(b.data, b.len);
	return 0;
}

int kube_token_get(struct kube_token *t, const char *file, int64_t now_ms, const char **ret_header,
		   struct err *e)
{
	if (*file && (!t->header || now_ms - t->read_ms >= TOKEN_FRESH_MS)) {
		int r = read_token(t, file, e);

		if (r < 0 && !t->header)
			return r;
		t->read_ms = now_ms;
	}
	*ret_header = t->header;
	return 0;
}

void kube_token_refused(struct kube_token *t)
{
	t->read_ms = INT64_MIN / 2;
}

void kube_token_fini(struct kube_token *t)
{
	if (t->header)
		explicit_bzero(t->header, strlen(t->header));
	free(t->header);
	t->header = NULL;
}
