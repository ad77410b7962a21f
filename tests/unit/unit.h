/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What every unit test includes: cmocka with the headers it wants before it, and a few words for
 * what tests of asynchronous code need. A test program has one group of tests, named
 * <unit>_<condition>_<result>, and ends with UNIT_MAIN(tests).
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define UNIT_MAIN(tests)                                                                           \
	int main(void)                                                                             \
	{                                                                                          \
		return cmocka_run_group_tests(tests, NULL, NULL);                                  \
	}
