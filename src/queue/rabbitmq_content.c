/* SPDX-License-Identifier: Apache-2.0 */
#include "queue/rabbitmq-private.h"

#include "base/traceparent.h"

#include <errno.h>
#include <string.h>

static void copy_text(amqp_bytes_t text, char *dst, size_t size)
{
	dst[0] = '\0';
	if (text.len >= size || memchr(text.bytes, '\0', text.len))
		return;
	memcpy(dst, text.bytes, text.len);
	dst[text.len] = '\0';
}

void rabbit_content_begin(struct rabbit_content *content, enum rabbit_content_kind kind,
			  uint64_t tag)
{
	content->kind = kind;
	content->tag = tag;
	content->has_header = content->too_large = false;
	content->len = 0;
	content->message_id[0] = content->traceparent[0] = '\0';
}

static void take_headers(struct rabbit_content *content, const amqp_basic_properties_t *p)
{
	if (p->_flags & AMQP_BASIC_MESSAGE_ID_FLAG)
		copy_text(p->message_id, content->message_id, sizeof content->message_id);
	if (!(p->_flags & AMQP_BASIC_HEADERS_FLAG))
		return;
	for (int i = 0; i < p->headers.num_entries; i++) {
		const amqp_table_entry_t *h = &p->headers.entries[i];

		if (h->value.kind == AMQP_FIELD_KIND_UTF8 && h->key.len == 11 &&
		    memcmp(h->key.bytes, "traceparent", 11) == 0 &&
		    traceparent_read(h->value.value.bytes.bytes, h->value.value.bytes.len, NULL))
			copy_text(h->value.value.bytes, content->traceparent,
				  sizeof content->traceparent);
	}
}

int rabbit_content_header(struct rabbit_content *content, const amqp_frame_t *f)
{
	if (content->kind == CONTENT_NONE || content->has_header ||
	    f->payload.properties.class_id != AMQP_BASIC_CLASS)
		return -EPROTO;
	content->has_header = true;
	content->left = f->payload.properties.body_size;
	content->too_large = content->left > sizeof content->body;
	take_headers(content, f->payload.properties.decoded);
	return !content->left;
}

int rabbit_content_body(struct rabbit_content *content, const amqp_frame_t *f)
{
	amqp_bytes_t part = f->payload.body_fragment;

	if (content->kind == CONTENT_NONE || !content->has_header || part.len > content->left)
		return -EPROTO;
	content->left -= part.len;
	if (!content->too_large) {
		memcpy(content->body + content->len, part.bytes, part.len);
		content->len += part.len;
	}
	return !content->left;
}
