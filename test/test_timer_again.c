/*
 * Goal: a timer that is started again while its action is under way, in that action or elsewhere:
 * who stops it and waits for it waits for that action, and its actions never overlap.
 * Method: an action that starts its timer again, says that it is inside, and stays until told.
 */
#include <errno.h>

#include "test/runtime.h"

enum {
	AGAIN_NEVER,
	AGAIN_AT_ONCE,
	AGAIN_LATE,
};

static struct stage {
	struct weft_timer timer;
	int again;
	wf_atomic_u32 inside, told, actions, overlaps;
} stage;

static weft_time again_at(void)
{
	return stage.again == AGAIN_LATE ? weft_after(WEFT_SEC(3600)) : 0;
}

static void begin_action(void)
{
	if (wf_u32_fetch_add(&stage.inside, 1) != 0)
		(void)wf_u32_fetch_add(&stage.overlaps, 1);
	(void)wf_u32_fetch_add(&stage.actions, 1);
}

static void action(void *arg)
{
	int again = stage.again;

	if (again != AGAIN_NEVER)
		cr_assert_eq(weft_timer_start(&stage.timer, NULL, again_at(), action, arg), 0);
	stage.again = AGAIN_NEVER;
	begin_action();
	UNTIL_FOREIGN(wf_u32_load_acquire(&stage.told));
	(void)wf_u32_fetch_add(&stage.inside, (uint32_t)-1);
}

static bool is_inside(void)
{
	return wf_u32_load_acquire(&stage.inside) > 0;
}

static void enter_action(weft_rt *rt, int again)
{
	stage.again = again;
	cr_assert_eq(weft_timer_start(&stage.timer, rt, 0, action, NULL), 0);
	UNTIL_FOREIGN(is_inside());
}

static void leave_action(void)
{
	wf_u32_store_release(&stage.told, 1);
}

static int cancel_wait(void *arg)
{
	(void)arg;
	return weft_timer_cancel_wait(&stage.timer, WEFT_FOREVER);
}

Test(timer_again, who_cancels_waits_for_the_action_of_an_earlier_start, .timeout = 60)
{
	weft_rt *rt = runtime_new(2);

	enter_action(rt, AGAIN_LATE);
	cr_assert_eq(weft_timer_cancel_wait(&stage.timer, WEFT_POLL), -EAGAIN);
	cr_assert(!weft_timer_is_pending(&stage.timer), "it is stopped all the same");
	cr_assert_eq(weft_timer_cancel_wait(&stage.timer, weft_after(WEFT_MS(2))), -ETIME);
	leave_action();
	cr_assert_eq(weft_timer_cancel_wait(&stage.timer, WEFT_FOREVER), 0);
	cr_assert(!is_inside());
	runtime_end(rt);
}

Test(timer_again, a_stop_in_between_changes_nothing, .timeout = 60)
{
	weft_rt *rt = runtime_new(2);

	enter_action(rt, AGAIN_LATE);
	cr_assert_eq(weft_timer_stop(&stage.timer), 1);
	cr_assert_eq(weft_timer_cancel_wait(&stage.timer, WEFT_POLL), -EAGAIN);
	leave_action();
	cr_assert_eq(runtime_do(rt, cancel_wait, NULL), 0);
	cr_assert(!is_inside());
	runtime_end(rt);
}

Test(timer_again, started_from_elsewhere_it_is_waited_for_too, .timeout = 60)
{
	weft_rt *rt = runtime_new(2);

	enter_action(rt, AGAIN_NEVER);
	cr_assert_eq(weft_timer_start(&stage.timer, rt, weft_after(WEFT_SEC(3600)), action, NULL),
		0);
	cr_assert_eq(weft_timer_cancel_wait(&stage.timer, WEFT_POLL), -EAGAIN);
	leave_action();
	cr_assert_eq(weft_timer_cancel_wait(&stage.timer, WEFT_FOREVER), 0);
	cr_assert(!is_inside());
	runtime_end(rt);
}

static void nothing(void *arg)
{
	(void)arg;
}

/* One that is not waited for is not asked for either: another's action, in the same shard. */
Test(timer_again, an_end_that_was_waited_for_is_the_end, .timeout = 60)
{
	struct weft_timer other = {{0}};
	weft_rt *rt = runtime_new(1);

	leave_action();
	stage.again = AGAIN_AT_ONCE;
	cr_assert_eq(weft_timer_start(&stage.timer, rt, 0, action, NULL), 0);
	UNTIL_FOREIGN(wf_u32_load_acquire(&stage.actions) == 2);
	cr_assert_geq(weft_timer_cancel_wait(&stage.timer, WEFT_FOREVER), 0);
	wf_u32_store_release(&stage.told, 0);
	cr_assert_eq(weft_timer_start(&other, rt, weft_after(WEFT_SEC(3600)), nothing, NULL), 0);
	enter_action(rt, AGAIN_NEVER);
	cr_assert_eq(weft_timer_cancel_wait(&other, WEFT_POLL), 1);
	leave_action();
	cr_assert_eq(weft_timer_cancel_wait(&stage.timer, WEFT_FOREVER), 0);
	runtime_end(rt);
}

/*
 * It holds its worker until the other one has fired its timer, whose action starts it again; and
 * then is there to fire that, for as long as many looks at the other's timers take.
 */
static int starts_and_holds(void *arg)
{
	weft_time end;

	stage.again = AGAIN_AT_ONCE;
	cr_assert_eq(weft_timer_start(&stage.timer, NULL, 0, action, arg), 0);
	UNTIL_FOREIGN(is_inside());
	end = weft_after(WEFT_MS(3));
	UNTIL(weft_now() > end);
	leave_action();
	UNTIL(wf_u32_load_acquire(&stage.actions) == 2);
	return weft_timer_cancel_wait(&stage.timer, WEFT_FOREVER);
}

Test(timer_again, actions_of_one_timer_do_not_overlap, .timeout = 60)
{
	weft_rt *rt = runtime_new(2);

	cr_assert_eq(runtime_do(rt, starts_and_holds, NULL), 0);
	cr_assert_eq(wf_u32_load_relaxed(&stage.overlaps), 0);
	runtime_end(rt);
}

static int waited_for_itself = 1;

static void cancels_itself(void *arg)
{
	cr_assert_eq(
		weft_timer_start(&stage.timer, NULL, weft_after(WEFT_SEC(9)), nothing, arg), 0);
	waited_for_itself = weft_timer_cancel_wait(&stage.timer, WEFT_FOREVER);
	(void)wf_u32_fetch_add(&stage.actions, 1);
}

Test(timer_again, an_action_cannot_wait_for_itself, .timeout = 60)
{
	weft_rt *rt = runtime_new(1);

	cr_assert_eq(weft_timer_start(&stage.timer, rt, 0, cancels_itself, NULL), 0);
	UNTIL_FOREIGN(wf_u32_load_acquire(&stage.actions) == 1);
	cr_assert_eq(waited_for_itself, -EDEADLK);
	cr_assert(!weft_timer_is_pending(&stage.timer));
	runtime_end(rt);
}
