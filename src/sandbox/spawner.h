/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The privileged loop: `kiln-sandbox serve`. One thread, one poll over the control socket and, per
 * box, its socket and the pidfd of its init. It reads fixed structs and numbers from the kernel,
 * and nothing that a user wrote. Returns the exit code of the process.
 * What it is given is zero but for `control`, the socket, and plan.resume where it has one. */
struct spawner;
int spawner_serve(struct spawner *s);
