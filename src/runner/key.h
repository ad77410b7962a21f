/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The file with a runner's name and key, as `kiln runner-key` writes it. */

#include "wire/tls.h"

/* Reads a file that nobody but its owner may read: "kiln-runner-key NAME HEX". Fills in identity
 * and key. -EINVAL, -EACCES with what is wrong. */
int key_read(const char *path, struct tls_psk *ret_psk, struct err *e);
