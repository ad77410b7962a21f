/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a YAML file: no crash, no leak, and every value that is there can be asked for. */
#include "yaml/yaml.h"

#include <assert.h>
#include <string.h>

enum { INPUT_MAX = 64 * 1024 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void ask(const struct yaml_value *v)
{
	const char *text = NULL;
	char **texts = NULL;
	int64_t number = 0;
	bool truth = false;
	struct err e;

	if (yaml_as_text(v, &text, &e) >= 0)
		assert(text && yaml_kind(v) == YAML_SCALAR);
	(void)yaml_as_bool(v, &truth, &e);
	if (yaml_as_int(v, -5, 5, &number, &e) >= 0)
		assert(number >= -5 && number <= 5);
	if (yaml_as_texts(v, &texts, &e) >= 0)
		yaml_texts_free(texts);
	(void)yaml_check_keys(v, (const char *const[]){"name", "limits"}, 2, &e);
	for (size_t i = 0; i < yaml_count(v); i++) {
		if (yaml_kind(v) == YAML_MAPPING)
			assert(yaml_find(v, yaml_key(v, i)) == yaml_item(v, i));
		ask(yaml_item(v, i));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	AUTO(yaml_doc_free) struct yaml_doc *d = NULL;
	struct err e;

	if (size > INPUT_MAX || yaml_doc_load("fuzz", data, size, &d, &e) < 0)
		return 0;
	ask(yaml_doc_root(d));
	return 0;
}
