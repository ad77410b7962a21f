/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What both ends ask of a TCP connection that carries frames: small frames leave at once, and a
 * peer that is gone without a word (power, cable, a firewall that forgot) is noticed within
 * TCP_GONE_MS, whether anything is being sent or not.
 */

enum { TCP_GONE_MS = 15000 };

/* Best effort: a socket that does not know an option goes without. */
void tcp_set_up(int fd);
