/* SPDX-License-Identifier: Apache-2.0 */
#include "api/openapi.h"

#include "api/private.h"

void openapi_handle(struct http_request *r, void *ctx)
{
	(void)ctx;
	http_reply_static(r, 200, "application/json", openapi_json, openapi_json_len);
}
