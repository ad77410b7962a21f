/* SPDX-License-Identifier: Apache-2.0 */
#include "store/postgres-private.h"

#include "base/str.h"
#include "wire/codec.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <string.h>
#include <zstd.h>

/*
 * A whole of up to HEADLESS_MAX bytes is kept without a head of its own; one of at least
 * COMPRESS_MIN is compressed where that makes it smaller. The first byte of every packed value
 * tells how the rest is written. Compression happens on the loop: the effort falls with the size,
 * so that the biggest task that is allowed costs a few milliseconds.
 */
enum {
	HEADLESS_MAX = 2048,
	COMPRESS_MIN = 1024,
	EFFORT_BIG = 256 * 1024,
	LEVEL_SMALL = 1,
	LEVEL_BIG = -5,
};

enum coding { CODING_PLAIN = 0, CODING_ZSTD = 1 };

void pg_params_init(struct pg_params *p)
{
	*p = (struct pg_params){0};
	buf_init(&p->head, PG_PACKED_MAX);
	buf_init(&p->whole, PG_PACKED_MAX);
	buf_init(&p->packed, PG_PACKED_MAX);
	for (int i = 0; i < PG_ARRAYS_MAX; i++)
		buf_init(&p->arrays[i], PG_PACKED_MAX);
}

void pg_params_fini(struct pg_params *p)
{
	buf_fini(&p->head);
	buf_fini(&p->whole);
	buf_fini(&p->packed);
	for (int i = 0; i < PG_ARRAYS_MAX; i++)
		buf_fini(&p->arrays[i]);
}

void pg_params_clear(struct pg_params *p)
{
	p->n = 0;
	p->n_arrays = 0;
}

static void add(struct pg_params *p, const void *value, size_t len)
{
	p->values[p->n] = value;
	p->lengths[p->n] = (int)len;
	p->n++;
}

/* Integers go in network order. */
static void add_number(struct pg_params *p, int64_t value, size_t size)
{
	uint64_t big = htobe64((uint64_t)value);
	char *place = p->numbers[p->n];

	memcpy(place, (const char *)&big + sizeof big - size, size);
	add(p, place, size);
}

void pg_add_i64(struct pg_params *p, int64_t value)
{
	add_number(p, value, 8);
}

void pg_add_i32(struct pg_params *p, int32_t value)
{
	add_number(p, value, 4);
}

void pg_add_i16(struct pg_params *p, int16_t value)
{
	add_number(p, value, 2);
}

void pg_add_bool(struct pg_params *p, bool value)
{
	add_number(p, value, 1);
}

void pg_add_text(struct pg_params *p, const char *text)
{
	add(p, text, text ? strlen(text) : 0);
}

void pg_add_bytes(struct pg_params *p, const void *bytes, size_t len)
{
	add(p, bytes ? bytes : "", len);
}

void pg_add_null(struct pg_params *p)
{
	add(p, NULL, 0);
}

void pg_add_id(struct pg_params *p, const struct uuid *id)
{
	add(p, id->bytes, sizeof id->bytes);
}

/* array_recv() of the server: dimensions, flags, type, size and first index of the one dimension,
 * then each element behind its length. */
struct buf *pg_array_begin(struct pg_params *p, Oid type, size_t n)
{
	const uint32_t head[] = {htobe32(1), 0, htobe32(type), htobe32((uint32_t)n), htobe32(1)};
	const uint32_t none[] = {0, 0, htobe32(type)};
	struct buf *array = &p->arrays[p->n_arrays++];

	assert(p->n_arrays <= PG_ARRAYS_MAX);
	buf_clear(array);
	if (n)
		(void)buf_append(array, head, sizeof head);
	else
		(void)buf_append(array, none, sizeof none);
	return array;
}

void pg_array_append(struct buf *array, const void *bytes, size_t len)
{
	const uint32_t each = htobe32((uint32_t)len);

	(void)buf_append(array, &each, sizeof each);
	(void)buf_append(array, bytes, len);
}

int pg_add_array(struct pg_params *p, const struct buf *array)
{
	pg_add_bytes(p, array->data, array->len);
	return buf_error(array);
}

int pg_add_ids(struct pg_params *p, const struct uuid *ids, size_t n)
{
	enum { UUID_OID = 2950 };
	struct buf *array = pg_array_begin(p, UUID_OID, n);

	for (size_t i = 0; i < n; i++)
		pg_array_append(array, ids[i].bytes, sizeof ids[i].bytes);
	return pg_add_array(p, array);
}

int pg_add_i64s(struct pg_params *p, const uint64_t *numbers, size_t n)
{
	enum { INT8_OID = 20 };
	struct buf *array = pg_array_begin(p, INT8_OID, n);

	for (size_t i = 0; i < n; i++) {
		const uint64_t wire = htobe64(numbers[i]);

		pg_array_append(array, &wire, sizeof wire);
	}
	return pg_add_array(p, array);
}

/* ---- packing ---- */

/* Puts the coding and the bytes of "whole" into "packed". */
static int encode(struct pg_params *p)
{
	const struct buf *from = &p->whole;
	struct buf *to = &p->packed;
	int level = from->len > EFFORT_BIG ? LEVEL_BIG : LEVEL_SMALL;
	size_t n;
	int r;

	buf_clear(to);
	if (from->len >= COMPRESS_MIN) {
		r = buf_reserve(to, ZSTD_compressBound(from->len) + 1);
		if (r < 0)
			return r;
		n = ZSTD_compress(to->data + 1, ZSTD_compressBound(from->len), from->data,
				  from->len, level);
		if (!ZSTD_isError(n) && n < from->len) {
			to->data[0] = CODING_ZSTD;
			to->len = n + 1;
			return 0;
		}
	}
	r = buf_append_char(to, CODING_PLAIN);
	return r < 0 ? r : buf_append(to, from->data, from->len);
}

static void add_packed(struct pg_params *p)
{
	if (p->head.len)
		pg_add_bytes(p, p->head.data, p->head.len);
	else
		pg_add_null(p);
	pg_add_bytes(p, p->packed.data, p->packed.len);
}

static void clear_packed(struct pg_params *p)
{
	buf_clear(&p->head);
	buf_clear(&p->whole);
}

int pg_add_spec(struct pg_params *p, const struct task_spec *spec)
{
	int r;

	clear_packed(p);
	r = codec_pack_spec(spec, &p->whole);
	if (r == 0 && p->whole.len > HEADLESS_MAX)
		r = buf_append_char(&p->head, CODING_PLAIN);
	if (r == 0 && p->whole.len > HEADLESS_MAX)
		r = codec_pack_spec_head(spec, &p->head);
	if (r == 0)
		r = encode(p);
	if (r == 0)
		add_packed(p);
	return r;
}

static int pack_result(struct pg_params *p, const struct task_result *result)
{
	int r;

	clear_packed(p);
	r = codec_pack_result(result, &p->whole);
	if (r == 0 && p->whole.len > HEADLESS_MAX)
		r = buf_append_char(&p->head, CODING_PLAIN);
	if (r == 0 && p->whole.len > HEADLESS_MAX)
		r = codec_pack_result_head(result, &p->head);
	return r == 0 ? encode(p) : r;
}

int pg_add_result(struct pg_params *p, const struct task_result *result)
{
	int r;

	if (!result) {
		pg_add_null(p);
		pg_add_null(p);
		return 0;
	}
	r = pack_result(p, result);
	if (r == 0)
		add_packed(p);
	return r;
}

int pg_add_failure(struct pg_params *p, const char *code, const char *message)
{
	struct task_result failure = {0};
	int r = -ENOMEM;

	if (!code) {
		pg_add_null(p);
		return 0;
	}
	failure.error_code = strdup(code);
	failure.error_message = strdup(message);
	if (failure.error_code && failure.error_message)
		r = pack_result(p, &failure);
	task_result_fini(&failure);
	if (r == 0)
		pg_add_bytes(p, p->packed.data, p->packed.len);
	return r;
}

/* ---- columns ---- */

bool pg_null(const PGresult *res, int row, int col)
{
	return PQgetisnull(res, row, col);
}

int64_t pg_number(const PGresult *res, int row, int col)
{
	size_t len = (size_t)PQgetlength(res, row, col);
	uint64_t big = 0;

	if (len > sizeof big || PQgetisnull(res, row, col))
		return 0;
	memcpy((char *)&big + sizeof big - len, PQgetvalue(res, row, col), len);
	big = be64toh(big);
	/* The sign of the shorter ones. */
	switch (len) {
	case 2:
		return (int16_t)big;
	case 4:
		return (int32_t)big;
	default:
		return (int64_t)big;
	}
}

int pg_id(const PGresult *res, int row, int col, struct uuid *ret_id)
{
	if (PQgetlength(res, row, col) != (int)sizeof ret_id->bytes)
		return -EIO;
	memcpy(ret_id->bytes, PQgetvalue(res, row, col), sizeof ret_id->bytes);
	return 0;
}

int pg_state(const PGresult *res, int row, int col, enum task_state *ret_state)
{
	int64_t value = pg_number(res, row, col);

	if (PQgetisnull(res, row, col) || value < 0 || value >= _TASK_STATE_MAX)
		return -EIO;
	*ret_state = (enum task_state)value;
	return 0;
}

int pg_text(const PGresult *res, int row, int col, char *dst, size_t size)
{
	return str_copy(dst, size, PQgetvalue(res, row, col)) ? 0 : -EIO;
}

int pg_ticket(const PGresult *res, int row, struct store_ticket *t)
{
	int64_t class = pg_number(res, row, 1);

	if (class < 0 || class >= _TASK_CLASS_MAX || pg_id(res, row, 0, &t->id) < 0 ||
	    pg_text(res, row, 2, t->language, sizeof t->language) < 0 ||
	    pg_text(res, row, 3, t->tenant, sizeof t->tenant) < 0)
		return -EIO;
	t->class = (enum task_class) class;
	if (PQnfields(res) > 6) {
		if (pg_text(res, row, 5, t->traceparent, sizeof t->traceparent) < 0)
			return -EIO;
		t->queued_us = pg_number(res, row, 6);
	}
	if (PQnfields(res) > 7)
		t->boxed = pg_number(res, row, 7);
	return pg_state(res, row, 4, &t->state);
}

int pg_tickets(const PGresult *res, struct store_ticket **ret_tickets, size_t *ret_n)
{
	int n = PQntuples(res);
	AUTO_FREE struct store_ticket *tickets = NULL;

	if (n == 0)
		return 0;
	tickets = calloc((size_t)n, sizeof *tickets);
	if (!tickets)
		return -ENOMEM;
	for (int i = 0; i < n; i++)
		if (pg_ticket(res, i, &tickets[i]) < 0)
			return -EIO;
	*ret_tickets = TAKE_PTR(tickets);
	*ret_n = (size_t)n;
	return 0;
}

/* Gives the bytes behind the coding; *own is what the caller frees. */
static int decode(const PGresult *res, int row, int col, char **own, const char **ret_bytes,
		  size_t *ret_len)
{
	const char *value = PQgetvalue(res, row, col);
	size_t len = (size_t)PQgetlength(res, row, col);
	unsigned long long size;

	if (len < 1)
		return -EIO;
	if (value[0] == CODING_PLAIN) {
		*ret_bytes = value + 1;
		*ret_len = len - 1;
		return 0;
	}
	size = value[0] == CODING_ZSTD ? ZSTD_getFrameContentSize(value + 1, len - 1)
				       : ZSTD_CONTENTSIZE_ERROR;
	if (size > PG_PACKED_MAX) /* unknown and in error are the biggest numbers */
		return -EIO;
	*own = malloc((size_t)size + 1);
	if (!*own)
		return -ENOMEM;
	if (ZSTD_decompress(*own, (size_t)size, value + 1, len - 1) != size)
		return -EIO;
	*ret_bytes = *own;
	*ret_len = (size_t)size;
	return 0;
}

int pg_spec(const PGresult *res, int row, int col, bool contents, struct task_spec *ret_spec)
{
	AUTO_FREE char *own = NULL;
	const char *bytes;
	size_t len;
	int r = decode(res, row, col, &own, &bytes, &len);

	if (r < 0)
		return r == -ENOMEM ? r : -EIO;
	return store_unpack_spec(bytes, len, contents, ret_spec);
}

int pg_result(const PGresult *res, int row, int col, bool outputs, struct task_result **ret_result)
{
	AUTO_FREE char *own = NULL;
	const char *bytes;
	size_t len;
	int r;

	if (PQgetisnull(res, row, col))
		return 0;
	r = decode(res, row, col, &own, &bytes, &len);
	if (r == 0)
		r = codec_unpack_result(bytes, len, ret_result, NULL);
	if (r < 0)
		return r == -ENOMEM ? r : -EIO;
	if (!outputs)
		store_strip_result(*ret_result);
	return 0;
}
