/* SPDX-License-Identifier: Apache-2.0 */
#include "api/private.h"
#include "json/writer.h"

#include <stdio.h>

enum { LANGUAGES_BODY_MAX = 1024 * 1024 };

static void write_texts(struct json_writer *w, const char *name, char *const *texts)
{
	json_write_name(w, name);
	json_write_begin_array(w);
	for (char *const *t = texts; t && *t; t++)
		json_write_text(w, *t);
	json_write_end_array(w);
}

/* What a task of this language gets where the client says nothing. */
static void write_limits(struct json_writer *w, const struct api_config *cfg,
			 const struct language *l)
{
	struct task_limits limits = l->run.limits;

	task_limits_default(&limits, &cfg->run_defaults);
	json_write_name(w, "limits");
	json_write_begin_object(w);
	for (size_t i = 0; i < task_limit_fields_count; i++) {
		const struct task_limit_field *f = &task_limit_fields[i];
		int64_t value = task_limit_get(&limits, f);
		int64_t ceiling = task_limit_get(&cfg->run_ceilings, f);

		if (ceiling != TASK_LIMIT_UNSET && value > ceiling)
			value = ceiling;
		json_write_int_field(w, f->name, value);
	}
	json_write_end_object(w);
}

static void write_language(struct json_writer *w, const struct api_config *cfg,
			   const struct language *l, bool known)
{
	char command[256];

	json_write_begin_object(w);
	json_write_text_field(w, "name", l->name);
	json_write_text_field(w, "title", l->title ? l->title : l->name);
	json_write_text_field(w, "version", l->version);
	write_texts(w, "aliases", l->aliases);
	write_texts(w, "extensions", l->extensions);
	json_write_text_field(w, "source", l->source);
	json_write_bool_field(w, "compiled", l->compile.argv != NULL);
	if (known || l->installed)
		json_write_bool_field(w, "installed", l->installed);
	else
		json_write_null_field(w, "installed");
	if (!l->installed && known && l->install_debian) {
		(void)snprintf(command, sizeof command, "apt-get install %s", l->install_debian);
		json_write_text_field(w, "install", command);
	} else {
		json_write_null_field(w, "install");
	}
	write_limits(w, cfg, l);
	json_write_end_object(w);
}

void languages_handle(struct http_request *r, void *ctx)
{
	const struct api_config *cfg = &((struct api *)ctx)->cfg;
	bool known = !cfg->languages_known || cfg->languages_known(cfg->ctx);
	struct json_writer w;
	struct buf body;

	buf_init(&body, LANGUAGES_BODY_MAX);
	json_writer_init(&w, &body);
	json_write_begin_object(&w);
	json_write_name(&w, "languages");
	json_write_begin_array(&w);
	for (size_t i = 0; i < language_count(cfg->languages); i++)
		write_language(&w, cfg, language_at(cfg->languages, i), known);
	json_write_end_array(&w);
	json_write_end_object(&w);
	(void)buf_append_char(&body, '\n');
	http_reply(r, 200, "application/json", &body);
	buf_fini(&body);
}
