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

int environment_add(char ***envp, const char *name, const char *value)
{
	char **wider;
	size_t n = 0;

	while ((*envp)[n])
		n++;
	wider = realloc(*envp, (n + 2) * sizeof(*wider));
	if (!wider)
		return -ENOMEM;
	*envp = wider;
	wider[n + 1] = NULL;
	if (asprintf(&wider[n], "%s=%s", name, value) < 0) {
		wider[n] = NULL;
		return -ENOMEM;
	}
	return 0;
}

DEFINE_CLEANUP(char *, environment_free);

int environment_new(const struct language *l, char ***ret_envp, struct err *e)
{
	AUTO(environment_free) char **envp = calloc(1, sizeof(*envp));
	int r = envp ? 0 : -ENOMEM;

	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(fixed); i++) {
		if (!replaced(l, fixed[i].name))
			r = environment_add(&envp, fixed[i].name, fixed[i].value);
	}
	for (size_t i = 0; r == 0 && i < l->n_env; i++)
		r = environment_add(&envp, l->env[i].name, l->env[i].value);
	if (r < 0)
		return err_set(e, r, "out of memory");
	*ret_envp = TAKE_PTR(envp);
	return 0;
}

void environment_free(char **envp)
{
	for (size_t i = 0; envp && envp[i]; i++)
		free(envp[i]);
	free(envp);
}
