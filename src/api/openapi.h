/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* openapi.yaml as JSON; the file that defines these is made by tools/openapi-to-c.py. */

#include <stddef.h>

extern const char openapi_json[];
extern const size_t openapi_json_len;
