/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * SHA-256 (FIPS 180-4) and comparison in constant time, by OpenSSL's libcrypto.
 */

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { DIGEST_SIZE = 32 };

int digest_bytes(const void *bytes, size_t len, uint8_t ret_digest[DIGEST_SIZE]);

/* In pieces. digest_new returns NULL when memory is gone; digest_finish frees. */
struct digest;
struct digest *digest_new(void);
void digest_free(struct digest *d);
int digest_add(struct digest *d, const void *bytes, size_t len);
/* Length first, so that two fields never run into each other; NULL is the empty field. */
int digest_add_field(struct digest *d, const void *bytes, size_t len);
int digest_finish(struct digest *d, uint8_t ret_digest[DIGEST_SIZE]);

bool digest_eq(const void *a, const void *b, size_t len);
