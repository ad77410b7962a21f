/* SPDX-License-Identifier: Apache-2.0 */
#include "runner/environment.h"

#include "base/cleanup.h"
#include "base/str.h"
#include "sandbox/protocol.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

static const struct {
	const char *name, *value;
} fixed[] = {
	{"PATH", "/usr/bin:/bin"},
	{"HOME", SANDBOX_WORK_DIR},
	{"TMPDIR", "/tmp"},
	{"LANG", "C.UTF-8"},
};

static bool replaced(const struct language *l, const char *name)
{
	for (size_t i = 0; i < l->n_env; i++) {
		if (str_eq(l->env[i].name, name))
			return true;
	}
	return false;
}

static int add(char **envp, size_t *n, const char *name, const char *value)
{
	if (asprintf(&envp[*n], "%s=%s", name, value) < 0) {
		envp[*n] = NULL;
		return -ENOMEM;
	}
	(*n)++;
	return 0;
}

DEFINE_CLEANUP(char *, environment_free);

int environment_new(const struct language *l, char ***ret_envp, struct err *e)
{
	AUTO(environment_free)
	char **envp = calloc(ARRAY_SIZE(fixed) + l->n_env + 1, sizeof(*envp));
	size_t n = 0;

	if (!envp)
		return err_set(e, -ENOMEM, "out of memory");
	for (size_t i = 0; i < ARRAY_SIZE(fixed); i++) {
		if (!replaced(l, fixed[i].name) && add(envp, &n, fixed[i].name, fixed[i].value) < 0)
			return err_set(e, -ENOMEM, "out of memory");
	}
	for (size_t i = 0; i < l->n_env; i++) {
		if (add(envp, &n, l->env[i].name, l->env[i].value) < 0)
			return err_set(e, -ENOMEM, "out of memory");
	}
	*ret_envp = TAKE_PTR(envp);
	return 0;
}

void environment_free(char **envp)
{
	for (size_t i = 0; envp && envp[i]; i++)
		free(envp[i]);
	free(envp);
}
