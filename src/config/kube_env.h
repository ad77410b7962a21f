/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What the kubelet tells to every container in its environment: where the API server is. NULL
 * outside of a pod. */

const char *config_kube_host(void);
const char *config_kube_port(void);
