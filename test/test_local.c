/*
 * Goal: what <weft/fail.h> promises of local values.
 * Method: values are letters; destructors write them down.
 */
#include <errno.h>
#include <stdlib.h>

#include "test/runtime.h"

static char text[64];
static size_t length;
static weft_local first, second, plain;

static void tell(char letter)
{
	cr_assert_lt(length, sizeof text - 1);
	text[length++] = letter;
	text[length] = '\0';
}

static void tell_value(void *value)
{
	tell(*(char *)value);
}

static void make_keys(void (*dtor_first)(void *value), void (*dtor_second)(void *value))
{
	cr_assert_eq(weft_local_create(&first, dtor_first), 0);
	cr_assert_eq(weft_local_create(&second, dtor_second), 0);
	cr_assert_eq(weft_local_create(&plain, NULL), 0);
}

static int has_none(void *arg)
{
	(void)arg;
	cr_assert_null(weft_local_get(first));
	cr_assert_eq(weft_local_set(first, NULL), 0);
	cr_assert_null(weft_local_get(first));
	return 0;
}

static int sets_and_looks(void *arg)
{
	weft_local none = {0}, wild = {plain.raw + 1}, wilder = {UINT32_MAX};
	char a = 'a', b = 'b';

	(void)arg;
	cr_assert_eq(weft_local_set(first, &a), 0);
	cr_assert_eq(weft_local_set(plain, &b), 0);
	cr_assert_eq(joined(spawned(has_none, NULL)), 0);
	cr_assert(weft_local_get(first) == &a && weft_local_get(plain) == &b);
	cr_assert_null(weft_local_get(second));
	cr_assert_eq(weft_local_set(first, &b), 0);
	cr_assert(weft_local_get(first) == &b);
	cr_assert_eq(weft_local_set(first, NULL), 0, "then it is not destroyed");
	cr_assert_eq(weft_local_set(none, &a), -EINVAL);
	cr_assert_eq(weft_local_set(wild, &a), -EINVAL);
	cr_assert_eq(weft_local_set(wilder, &a), -EINVAL);
	cr_assert(!weft_local_get(none) && !weft_local_get(wild) && !weft_local_get(wilder));
	return 0;
}

Test(local, values_are_each_processs_own, .timeout = 120)
{
	char a = 'a';

	make_keys(tell_value, tell_value);
	cr_assert_eq(in_runtime(1, sets_and_looks, NULL), 0);
	cr_assert_str_eq(text, "");
	cr_assert_eq(weft_local_set(first, &a), -EPERM);
	cr_assert_null(weft_local_get(first));
}

/* Set from the cleanup, against the order of the keys. */
static char letters[] = "abcd";

static void sets_in_a_cleanup(void *arg)
{
	tell('!');
	cr_assert_eq(weft_local_set(second, &letters[1]), 0);
	cr_assert(weft_local_get(second) == &letters[1]);
	cr_assert_eq(weft_local_set(first, &letters[0]), 0);
	cr_assert_eq(weft_local_set(plain, &letters[2]), 0);
	(void)arg;
}

static int sets_at_its_end(void *arg)
{
	cr_assert_eq(weft_defer(arg, sets_in_a_cleanup, NULL), 0);
	return 0;
}

/* Of the argument, last: values are over. */
static void drops(void *arg)
{
	(void)arg;
	tell('.');
	cr_assert_null(weft_local_get(first));
	cr_assert_eq(weft_local_set(first, &letters[0]), -EPERM);
}

static void run_with_drop(weft_fn fn, void *arg)
{
	struct weft_spawn_opts opts = {.size = sizeof opts, .arg_dtor = drops};
	weft_rt *rt = runtime_new(1);
	weft_pid pid;

	cr_assert_eq(weft_rt_spawn(rt, fn, arg, &opts, &pid), 0);
	cr_assert_eq(weft_join(pid, NULL, WEFT_FOREVER), 0);
	runtime_end(rt);
}

Test(local, are_destroyed_in_order_behind_the_cleanups, .timeout = 120)
{
	struct weft_deferred defer;

	make_keys(tell_value, tell_value);
	run_with_drop(sets_at_its_end, &defer);
	cr_assert_str_eq(text, "!ab.");
}

static void sets_again(void *value)
{
	tell(*(char *)value);
	cr_assert_null(weft_local_get(first), "taken out before it is destroyed");
	cr_assert_eq(weft_local_set(first, value), 0);
}

/* Its key comes first: the value set is destroyed in the next round; once. */
static void sets_the_first(void *value)
{
	tell(*(char *)value);
	cr_assert_eq(weft_local_set(first, &letters[3]), 0);
}

static int sets_one(void *arg)
{
	return weft_local_set(*(weft_local *)arg, &letters[0]);
}

Test(local, destructors_that_set_values_have_four_rounds, .timeout = 120)
{
	make_keys(sets_again, NULL);
	run_with_drop(sets_one, &first);
	cr_assert_str_eq(text, "aaaa.");
}

Test(local, a_value_set_by_a_destructor_is_destroyed, .timeout = 120)
{
	make_keys(tell_value, sets_the_first);
	run_with_drop(sets_one, &second);
	cr_assert_str_eq(text, "ad.");
}

static void says_e(void *arg)
{
	(void)arg;
	tell('e');
}

/* Defers and fails; its record is the test's. */
static struct weft_deferred later;

static void defers_and_fails(void *value)
{
	tell(*(char *)value);
	cr_assert_eq(weft_defer(&later, says_e, NULL), 0);
	weft_fail(-EIO, "in a destructor");
}

static int sets_two(void *arg)
{
	(void)arg;
	cr_assert_eq(weft_local_set(first, &letters[0]), 0);
	return weft_local_set(second, &letters[1]);
}

Test(local, a_destructor_may_defer_and_fail, .timeout = 120)
{
	make_keys(defers_and_fails, tell_value);
	run_with_drop(sets_two, NULL);
	cr_assert_str_eq(text, "aeb.");
}

/* Each of all keys' destructors fails: none is left out for it, nor called twice. */
static void fails_each_time(void *value)
{
	tell(*(char *)value);
	weft_fail(-EIO, "in a destructor");
}

static int sets_all(void *arg)
{
	for (uint32_t i = 1; i <= WEFT_LOCALS_MAX; i++) {
		weft_local key = {i};

		cr_assert_eq(weft_local_set(key, &letters[0]), 0);
	}
	(void)arg;
	return 0;
}

Test(local, as_many_as_there_can_be_may_all_fail, .timeout = 120)
{
	weft_local key = {77};

	for (int i = 0; i < WEFT_LOCALS_MAX; i++)
		cr_assert_eq(weft_local_create(&key, fails_each_time), 0);
	cr_assert_eq(weft_local_create(&key, NULL), -EAGAIN);
	cr_assert_eq(weft_local_create(NULL, NULL), -EINVAL);
	run_with_drop(sets_all, NULL);
	cr_assert_eq(length, WEFT_LOCALS_MAX + 1u);
	cr_assert_eq(strspn(text, "a"), (size_t)WEFT_LOCALS_MAX);
}

/* Keys are made by threads at once: each gets another one. */
static void makes_keys(unsigned index, void *arg)
{
	weft_local *keys = arg;

	for (unsigned i = 0; i < 8; i++)
		cr_assert_eq(weft_local_create(&keys[index * 8 + i], NULL), 0);
}

Test(local, keys_are_made_by_any_thread, .timeout = 120)
{
	weft_local keys[WEFT_LOCALS_MAX];
	uint64_t seen = 0;

	harness_threads(4, makes_keys, keys);
	for (unsigned i = 0; i < WEFT_LOCALS_MAX; i++)
		seen |= (uint64_t)1 << keys[i].raw;
	cr_assert_eq(seen, (uint64_t)UINT32_MAX << 1);
}

/* An allocator that runs dry, and counts. */
static wf_atomic_u32 dry;
static wf_atomic_u64 in_use;

static void *allocate(void *ctx, size_t alignment, size_t size)
{
	void *memory = NULL;

	(void)ctx;
	if (wf_u32_load_relaxed(&dry) || posix_memalign(&memory, alignment, size) != 0)
		return NULL;
	wf_u64_fetch_add(&in_use, size);
	return memory;
}

static void release(void *ctx, void *memory, size_t size)
{
	(void)ctx;
	wf_u64_fetch_add(&in_use, -(uint64_t)size);
	free(memory);
}

static int sets_without_memory(void *arg)
{
	(void)arg;
	wf_u32_store_relaxed(&dry, 1);
	cr_assert_eq(weft_local_set(first, &letters[0]), -ENOMEM);
	cr_assert_null(weft_local_get(first));
	wf_u32_store_relaxed(&dry, 0);
	return weft_local_set(first, &letters[0]);
}

Test(local, memory_may_be_short_and_comes_back, .timeout = 120)
{
	static const struct weft_allocator allocator = {.allocate = allocate, .release = release};
	weft_rt *rt = runtime_new_with(
		&(struct weft_rt_opts){.workers = 1, .allocator = &allocator});

	make_keys(tell_value, NULL);
	cr_assert_eq(runtime_do(rt, sets_without_memory, NULL), 0);
	cr_assert_str_eq(text, "a");
	runtime_end(rt);
	cr_assert_eq(wf_u64_load_relaxed(&in_use), 0u);
}
