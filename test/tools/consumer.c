/*
 * consumer.c: a program of somebody who installed Weft. test/test_install.py builds it outside the
 * tree, static and shared, as C11 and as C++17, and runs it.
 */
#include <weft.h>

#include <stdio.h>
#include <string.h>

static int child(void *arg)
{
	return *(const int *)arg + 1;
}

static int parent(void *arg)
{
	weft_pid pid;
	int result = 0;
	int error = weft_spawn(child, arg, &pid);

	if (error == 0)
		error = weft_sleep_until(weft_after(WEFT_MS(1)));
	if (error == 0)
		error = weft_join(pid, &result, WEFT_FOREVER);
	return error != 0 ? error : result;
}

int main(void)
{
	struct weft_rt_opts opts;
	int number = 41;
	int result;

	memset(&opts, 0, sizeof(opts));
	opts.size = sizeof(opts);
	result = weft_main(&opts, parent, &number);
	printf("%s %d %s\n", weft_version(), result, weft_build_config());
	return result == 42 ? 0 : 1;
}
