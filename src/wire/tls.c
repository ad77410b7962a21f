/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/tls.h"

#include "base/cleanup.h"

#include <errno.h>
#include <limits.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/hmac.h>
#include <openssl/ssl.h>
#include <string.h>

enum { PENDING_MAX = 4 * 1024 * 1024, CHUNK = 16 * 1024 };

struct tls {
	struct tls_psk psk;
	SSL_CTX *ctx;
	SSL *ssl;
	BIO *in, *out; /* owned by ssl */
	struct buf *output;
	struct buf pending; /* plaintext from before the end of the handshake */
};

int tls_derive_key(const void *secret, size_t secret_len, const char *identity,
		   uint8_t ret_key[TLS_KEY_SIZE], struct err *e)
{
	static const char label[] = "kiln runner key 1:";
	char text[sizeof label + TLS_IDENTITY_MAX];
	size_t len = strlen(identity);

	if (secret_len < TLS_SECRET_MIN || secret_len > INT_MAX)
		return err_set(e, -EINVAL, "a cluster secret has at least %d bytes",
			       TLS_SECRET_MIN);
	if (!len || len >= TLS_IDENTITY_MAX)
		return err_set(e, -EINVAL, "the name of a runner has 1 to %d bytes",
			       TLS_IDENTITY_MAX - 1);
	memcpy(text, label, sizeof label - 1);
	memcpy(text + sizeof label - 1, identity, len);
	if (!HMAC(EVP_sha256(), secret, (int)secret_len, (const unsigned char *)text,
		  sizeof label - 1 + len, ret_key, NULL))
		return err_set(e, -ENOMEM, "could not derive a key");
	return 0;
}

/* The key as the session that both ends pretend to have had before. */
static SSL_SESSION *psk_session(struct tls *t, SSL *ssl)
{
	/* TLS_AES_128_GCM_SHA256: its hash is the one that the key is bound to. */
	static const unsigned char suite[] = {0x13, 0x01};
	const SSL_CIPHER *cipher = SSL_CIPHER_find(ssl, suite);
	SSL_SESSION *session = SSL_SESSION_new();

	if (session && cipher &&
	    SSL_SESSION_set1_master_key(session, t->psk.key, sizeof t->psk.key) == 1 &&
	    SSL_SESSION_set_cipher(session, cipher) == 1 &&
	    SSL_SESSION_set_protocol_version(session, TLS1_3_VERSION) == 1)
		return session;
	SSL_SESSION_free(session);
	return NULL;
}

static int use_session(SSL *ssl, const EVP_MD *md, const unsigned char **ret_id, size_t *ret_len,
		       SSL_SESSION **ret_session)
{
	struct tls *t = SSL_get_app_data(ssl);

	*ret_session = NULL;
	/* After a HelloRetryRequest another hash would be asked for: there is none. */
	if (md && EVP_MD_get_type(md) != NID_sha256)
		return 0;
	*ret_session = psk_session(t, ssl);
	*ret_id = (const unsigned char *)t->psk.identity;
	*ret_len = strlen(t->psk.identity);
	return *ret_session != NULL;
}

static int find_session(SSL *ssl, const unsigned char *id, size_t len, SSL_SESSION **ret_session)
{
	struct tls *t = SSL_get_app_data(ssl);

	*ret_session = NULL;
	/* Another identity: no session, and the handshake fails for want of a certificate. */
	if (len != strlen(t->psk.identity) || CRYPTO_memcmp(id, t->psk.identity, len) != 0)
		return 1;
	*ret_session = psk_session(t, ssl);
	return *ret_session != NULL;
}

static int set_up(struct tls *t)
{
	t->ctx = SSL_CTX_new(TLS_method());
	if (!t->ctx || SSL_CTX_set_min_proto_version(t->ctx, TLS1_3_VERSION) != 1 ||
	    SSL_CTX_set_max_proto_version(t->ctx, TLS1_3_VERSION) != 1 ||
	    SSL_CTX_set_ciphersuites(t->ctx, "TLS_AES_128_GCM_SHA256") != 1)
		return -ENOMEM;
	/* No tickets: a session is never resumed, so there is nothing to steal. No early data. */
	(void)SSL_CTX_set_num_tickets(t->ctx, 0);
	(void)SSL_CTX_set_session_cache_mode(t->ctx, SSL_SESS_CACHE_OFF);
	(void)SSL_CTX_set_options(t->ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_IGNORE_UNEXPECTED_EOF);
	(void)SSL_CTX_set_mode(t->ctx, SSL_MODE_RELEASE_BUFFERS);
	if (t->psk.server)
		SSL_CTX_set_psk_find_session_callback(t->ctx, find_session);
	else
		SSL_CTX_set_psk_use_session_callback(t->ctx, use_session);
	/* The key is the proof of who the peer is; there is no certificate to verify. */
	SSL_CTX_set_verify(t->ctx, SSL_VERIFY_NONE, NULL);
	t->ssl = SSL_new(t->ctx);
	t->in = BIO_new(BIO_s_mem());
	t->out = BIO_new(BIO_s_mem());
	if (!t->ssl || !t->in || !t->out) {
		BIO_free(t->in);
		BIO_free(t->out);
		return -ENOMEM;
	}
	SSL_set_bio(t->ssl, t->in, t->out);
	(void)SSL_set_app_data(t->ssl, t);
	if (t->psk.server)
		SSL_set_accept_state(t->ssl);
	else
		SSL_set_connect_state(t->ssl);
	return 0;
}

/* Moves what OpenSSL wants sent into the output buffer. */
static int drain(struct tls *t)
{
	char chunk[CHUNK];
	int n, r;

	while ((n = BIO_read(t->out, chunk, sizeof chunk)) > 0) {
		r = buf_append(t->output, chunk, (size_t)n);
		if (r < 0)
			return r;
	}
	return 0;
}

static int encrypt(struct tls *t, const void *bytes, size_t len)
{
	size_t written;

	/* A memory BIO takes everything, so a write is never partial. */
	if (len && SSL_write_ex(t->ssl, bytes, len, &written) != 1)
		return -EPROTO;
	return drain(t);
}

/* What OpenSSL says where the names or the keys of the two ends differ: here, or as the alert that
 * the other end sends. */
static const struct {
	int reason;
	const char *text;
} reasons[] = {
	{SSL_R_BINDER_DOES_NOT_VERIFY, "the peer has another key for this runner"},
	{SSL_R_SSLV3_ALERT_ILLEGAL_PARAMETER, "the peer has another key for this runner"},
	{SSL_R_NO_SUITABLE_SIGNATURE_ALGORITHM, "the peer asks for a runner of another name"},
	{SSL_R_SSLV3_ALERT_HANDSHAKE_FAILURE, "the peer is a runner of another name"},
};

static int fail(struct err *e)
{
	unsigned long code = ERR_get_error();
	const char *reason = ERR_reason_error_string(code);

	ERR_clear_error();
	for (size_t i = 0; i < ARRAY_SIZE(reasons); i++)
		if (ERR_GET_REASON(code) == reasons[i].reason)
			return err_set(e, -EPROTO, "TLS failed: %s", reasons[i].text);
	return err_set(e, -EPROTO, "TLS failed: %s", reason ? reason : "the peer gave up");
}

/* Goes on with the handshake as far as what has arrived allows. */
static int shake(struct tls *t, struct err *e)
{
	bool was = SSL_is_init_finished(t->ssl);
	int r = was ? 1 : SSL_do_handshake(t->ssl);
	int drained;

	if (r != 1 && SSL_get_error(t->ssl, r) != SSL_ERROR_WANT_READ) {
		(void)drain(t); /* the alert */
		return fail(e);
	}
	drained = drain(t);
	if (drained < 0)
		return err_errno(e, drained, "could not keep up with the peer");
	if (was || !SSL_is_init_finished(t->ssl))
		return 0;
	r = encrypt(t, t->pending.data, t->pending.len);
	buf_fini(&t->pending);
	return r < 0 ? err_errno(e, r, "could not send") : 0;
}

int tls_new(const struct tls_psk *psk, struct buf *output, struct tls **ret_tls, struct err *e)
{
	struct tls *t = calloc(1, sizeof *t);
	int r;

	if (!t)
		return err_set(e, -ENOMEM, "out of memory");
	t->psk = *psk;
	t->output = output;
	buf_init(&t->pending, PENDING_MAX);
	r = set_up(t);
	if (r < 0)
		(void)err_set(e, r, "could not set up TLS");
	else
		r = shake(t, e);
	if (r < 0) {
		tls_free(t);
		return r;
	}
	*ret_tls = t;
	return 0;
}

void tls_free(struct tls *t)
{
	if (!t)
		return;
	SSL_free(t->ssl);
	SSL_CTX_free(t->ctx);
	buf_fini(&t->pending);
	OPENSSL_cleanse(t->psk.key, sizeof t->psk.key);
	free(t);
}

int tls_feed(struct tls *t, const void *bytes, size_t len, struct err *e)
{
	size_t written;

	ERR_clear_error();
	if (len && BIO_write_ex(t->in, bytes, len, &written) != 1)
		return err_set(e, -ENOMEM, "out of memory");
	return shake(t, e);
}

ssize_t tls_read(struct tls *t, void *dst, size_t size)
{
	size_t n = 0;

	if (!SSL_is_init_finished(t->ssl))
		return -EAGAIN;
	ERR_clear_error();
	if (SSL_read_ex(t->ssl, dst, size, &n) == 1)
		return (ssize_t)n;
	switch (SSL_get_error(t->ssl, 0)) {
	case SSL_ERROR_WANT_READ:
		return drain(t) < 0 ? -ENOMEM : -EAGAIN; /* a key update may want an answer */
	case SSL_ERROR_ZERO_RETURN:
		return 0;
	default:
		return -EPROTO;
	}
}

int tls_write(struct tls *t, const void *bytes, size_t len)
{
	if (!SSL_is_init_finished(t->ssl))
		return buf_append(&t->pending, bytes, len);
	return encrypt(t, bytes, len);
}

bool tls_established(const struct tls *t)
{
	return SSL_is_init_finished(t->ssl);
}
