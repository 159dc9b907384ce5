/* scene.c: see scene.h. */
#include "test/sim/scene.h"

#include "core/inbox.h"

struct scene scene;

const struct weft_spawn_opts scene_movable = {
	.size = sizeof(struct weft_spawn_opts), .flags = WEFT_MOVABLE};

/* --- a schedule --- */

void scene_reset(void)
{
	sim_runtime_reset();
	memset(&scene, 0, sizeof(scene));
}

void scene_create(unsigned workers)
{
	int r = weft_rt_create(sim_runtime_opts(workers), &scene.rt);

	sim_check(r == 0, "weft_rt_create: %d", r);
}

void scene_destroy(void)
{
	int r = weft_rt_destroy(scene.rt, WEFT_FOREVER);

	sim_check(r == 0, "weft_rt_destroy: %d", r);
	scene.rt = NULL;
}

void scene_check(void)
{
	for (unsigned i = 0; i < SCENE_BODIES; i++)
		sim_check(scene.bodies[i].runs == scene.bodies[i].ended, "process %u was cut off",
			i);
	sim_runtime_check();
}

void scene_settle(void)
{
	sim_point("settle");
	scene.settling = true;
	while (scene.settling)
		(void)sim_block(&scene.settling, SIM_FOREVER);
}

/* Headers that foreign threads gave up wait until the worker looks anyway: nobody is woken. */
static bool inbox_can_wait(struct wf_worker *worker)
{
	struct wf_node *node = wf_injector_top(wf_u64_load_relaxed(&worker->inbox.head));

	for (; node; node = node->batch_next)
		if (node->number != WF_MESSAGE_RETIRE)
			return false;
	return true;
}

static void check_asleep(struct wf_worker *worker)
{
	sim_check(wf_u32_load_relaxed(&worker->token) == WF_TOKEN_NONE, "worker %u has a token",
		worker->number);
	sim_check(!worker->searching, "worker %u sleeps and searches", worker->number);
	sim_check(!wf_worker_has_local_work(worker) && inbox_can_wait(worker),
		"worker %u sleeps, and has work", worker->number);
}

enum sim_quiet scene_quiet(void)
{
	struct weft_rt *rt = scene.rt;

	if (!scene.settling)
		return SIM_STUCK;
	sim_check(wf_u64_load_relaxed(&rt->idle.word) == rt->idle.workers_mask,
		"idle word %#llx when all sleep",
		(unsigned long long)wf_u64_load_relaxed(&rt->idle.word));
	sim_check(wf_injector_is_empty(&rt->injector), "all sleep, and there is work");
	for (unsigned i = 0; i < rt->worker_count; i++)
		check_asleep(&rt->workers[i]);
	scene.settling = false;
	(void)sim_unblock(&scene.settling, 1);
	return SIM_GO_ON;
}

/* --- gates --- */

void gate_open(struct gate *gate)
{
	wf_u32_store_release(&gate->word, 1);
	wf_futex_wake(&gate->word, SIM_THREADS_MAX);
}

bool gate_is_open(struct gate *gate)
{
	return wf_u32_load_acquire(&gate->word) != 0;
}

void gate_await(struct gate *gate)
{
	while (!gate_is_open(gate))
		(void)wf_futex_sleep(&gate->word, 0, WF_FUTEX_FOREVER);
}

/* --- bodies --- */

void body_enter(struct body *body)
{
	sim_check(body->inside == 0, "two workers run one process");
	body->inside++;
}

void body_leave(struct body *body)
{
	sim_check(body->inside == 1, "a process was left twice");
	body->inside--;
}

int body_number(const struct body *body)
{
	return (int)(body - scene.bodies);
}

struct body *body_begin(void *arg)
{
	struct body *body = arg;

	body_enter(body);
	sim_check(++body->runs == 1, "process %d runs twice", body_number(body));
	sim_check(body->dropped == 0, "its argument is gone");
	return body;
}

int body_end(struct body *body)
{
	sim_check(++body->ended == 1, "process %d ends twice", body_number(body));
	body_leave(body);
	return body_number(body);
}

int body_park(struct body *body, weft_time deadline)
{
	int r;

	body_leave(body);
	r = weft_park(deadline);
	body_enter(body);
	return r;
}

int body_yield(struct body *body)
{
	int r;

	body_leave(body);
	r = weft_yield();
	body_enter(body);
	return r;
}

void body_join(struct body *body)
{
	int result = -1;
	int r = weft_join(body->pid, &result, WEFT_FOREVER);

	sim_check(r == 0, "weft_join: %d", r);
	sim_check(result == body_number(body), "a result of another process");
	sim_check(body->ended == 1, "joined before it has ended");
}

void body_spawn(struct body *body, weft_fn fn, const struct weft_spawn_opts *opts)
{
	int r = weft_rt_spawn(scene.rt, fn, body, opts, &body->pid);

	sim_check(r == 0, "weft_rt_spawn: %d", r);
}

void body_drop(void *arg)
{
	struct body *body = arg;

	sim_check(++body->dropped == 1, "the argument of process %d is dropped twice",
		body_number(body));
}

int body_leaf(void *arg)
{
	return body_end(body_begin(arg));
}

struct weft_spawn_opts scene_opts(unsigned worker, unsigned flags)
{
	return (struct weft_spawn_opts){
		.size = sizeof(struct weft_spawn_opts), .worker = worker, .flags = flags};
}
