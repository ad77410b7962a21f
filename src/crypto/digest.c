/* SPDX-License-Identifier: Apache-2.0 */
#include "crypto/digest.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdlib.h>

struct digest {
	EVP_MD_CTX *ctx;
};

int digest_bytes(const void *bytes, size_t len, uint8_t ret_digest[DIGEST_SIZE])
{
	if (EVP_Digest(bytes, len, ret_digest, NULL, EVP_sha256(), NULL) != 1)
		return -ENOMEM;
	return 0;
}

struct digest *digest_new(void)
{
	struct digest *d = calloc(1, sizeof *d);

	if (!d)
		return NULL;
	d->ctx = EVP_MD_CTX_new();
	if (!d->ctx || EVP_DigestInit_ex(d->ctx, EVP_sha256(), NULL) != 1) {
		digest_free(d);
		return NULL;
	}
	return d;
}

void digest_free(struct digest *d)
{
	if (!d)
		return;
	EVP_MD_CTX_free(d->ctx);
	free(d);
}

int digest_add(struct digest *d, const void *bytes, size_t len)
{
	return EVP_DigestUpdate(d->ctx, bytes, len) == 1 ? 0 : -ENOMEM;
}

int digest_add_field(struct digest *d, const void *bytes, size_t len)
{
	uint64_t size = __builtin_bswap64((uint64_t)len);
	int r = digest_add(d, &size, sizeof size);

	return r < 0 || !len ? r : digest_add(d, bytes, len);
}

int digest_finish(struct digest *d, uint8_t ret_digest[DIGEST_SIZE])
{
	int r = EVP_DigestFinal_ex(d->ctx, ret_digest, NULL) == 1 ? 0 : -ENOMEM;

	digest_free(d);
	return r;
}

bool digest_eq(const void *a, const void *b, size_t len)
{
	return CRYPTO_memcmp(a, b, len) == 0;
}
