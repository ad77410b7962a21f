/* SPDX-License-Identifier: Apache-2.0 */
#include "config/kube_env.h"

#include <stdlib.h>

const char *config_kube_host(void)
{
	return getenv("KUBERNETES_SERVICE_HOST");
}

const char *config_kube_port(void)
{
	return getenv("KUBERNETES_SERVICE_PORT");
}
