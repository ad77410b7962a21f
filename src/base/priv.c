/* SPDX-License-Identifier: Apache-2.0 */
#include "base/priv.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <sys/prctl.h>
#include <unistd.h>

void priv_lookup(const char *user, uid_t fallback, uid_t *ret_uid, gid_t *ret_gid)
{
	struct passwd pw, *found = NULL;
	char scratch[4096];

	*ret_uid = fallback;
	*ret_gid = fallback;
	if (getpwnam_r(user, &pw, scratch, sizeof scratch, &found) == 0 && found) {
		*ret_uid = pw.pw_uid;
		*ret_gid = pw.pw_gid;
	}
}

int priv_drop(uid_t uid, gid_t gid, struct err *e)
{
	if (geteuid() != 0)
		return 0;
	if (setgroups(0, NULL) < 0 || setresgid(gid, gid, gid) < 0 || setresuid(uid, uid, uid) < 0)
		return err_errno(e, -errno, "could not become user %u", (unsigned)uid);
	if (uid != 0 && (setuid(0) == 0 || seteuid(0) == 0))
		return err_set(e, -EPERM, "could not give up root");
	/* A change of ids clears this; without it no core could be written and no ptrace by the own
	 * user would work, which is what a process with secrets in its memory wants. */
	(void)prctl(PR_SET_DUMPABLE, 0);
	return 0;
}
