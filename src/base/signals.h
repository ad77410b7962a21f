/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What a process does with signals that would end it for somebody else's fault.
 */

#include "base/err.h"

/* Writing to a peer that has gone, or to a log that nobody reads, answers EPIPE and does not kill.
 * What is ignored stays ignored in programs that are started: signals_default_pipe before exec. */
int signals_ignore_pipe(struct err *e);
void signals_default_pipe(void);
