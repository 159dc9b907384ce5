/*
 * planted.c: tests that must fail, each in its own way. test/test_build.py runs this under both
 * runners and expects every one of them to be found. Not in the list of tests.
 */
#include "test/harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

Test(planted, passes)
{
	cr_assert_eq(1 + 1, 2);
}

Test(planted, is_skipped)
{
	cr_skip_test("no %s here", "device");
	abort();
}

Test(planted, is_disabled, .disabled = true)
{
	abort();
}

Test(planted, assert_ends_the_test)
{
	int number = -3;

	cr_assert_eq(number, 4, "number of %s", "things");
	puts("went on after an assertion");
}

Test(planted, expect_goes_on)
{
	cr_expect_str_eq("left", "right");
	cr_expect_eq(0.5, 0.25, "second check");
}

static void fail_in_second(unsigned index, void *arg)
{
	(void)arg;
	cr_assert_neq(index, 1, "in a thread");
}

Test(planted, fails_in_a_thread)
{
	harness_threads(2, fail_in_second, NULL);
}

Test(planted, fails_with_the_status_it_expects, .exit_code = 101)
{
	cr_assert(false, "must not count as the expected exit");
}

Test(planted, ends_by_a_signal)
{
	raise(SIGKILL);
}

Test(planted, does_not_end_by_the_signal, .signal = SIGABRT)
{
}

Test(planted, exits_with_a_status)
{
	exit(3);
}

Test(planted, hangs, .timeout = 0.3)
{
	for (;;)
		pause();
}
