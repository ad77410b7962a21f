/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Where the API server of a cluster is, and what to show there to be let in.
 *
 *	kubernetes:NAMESPACE				inside of a pod: the service account's
 *	kubernetes:NAMESPACE?server=URL&ca=FILE&token=FILE	from anywhere
 *
 * Without "ca" an https server must have a certificate that this machine trusts, without "token"
 * nothing is shown. "max_pods" bounds all pools together. No kubeconfig is read.
 *
 * The token of a service account is replaced every hour or so, in its file: it is read again
 * every minute, and at once when the server has refused it.
 */

#include "base/err.h"

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { KUBE_NAME_MAX = 64, KUBE_SERVER_MAX = 320, KUBE_TOKEN_MAX = 16 * 1024 };

struct kube_access {
	char namespace[KUBE_NAME_MAX];
	char server[KUBE_SERVER_MAX]; /* "https://10.0.0.1:443", without a slash at its end */
	char ca_file[PATH_MAX];	      /* "": the machine's */
	char token_file[PATH_MAX];    /* "": none */
	uint32_t max_pods;	      /* 0: as many as the pools may have */
};

/* rest: what stands behind "kubernetes:". host and port: what the kubelet tells to a container as
 * KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT, or NULL. -EINVAL naming what is wrong. */
int kube_access_parse(const char *rest, const char *host, const char *port,
		      struct kube_access *ret_access, struct err *e);

/* A name that Kubernetes takes as a label (RFC 1123): a-z, 0-9, "-" inside, at most max bytes. */
bool kube_is_name(const char *text, size_t max);

struct kube_token {
	char *header; /* "Authorization: Bearer ..."; NULL: not read yet */
	int64_t read_ms;
};

/* The header line, read again where it is time; NULL where there is no token file. A file that can
 * no longer be read leaves the token that there was. Times are monotonic. */
int kube_token_get(struct kube_token *t, const char *file, int64_t now_ms, const char **ret_header,
		   struct err *e);
void kube_token_refused(struct kube_token *t); /* reads it again the next time */
void kube_token_fini(struct kube_token *t);
