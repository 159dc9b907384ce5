/*
 * runtime.c: the wrappers of core/ and timer/ in a simulation (instead of core/thread.c,
 * core/cpu.c, core/map.c, timer/clock.c), and a driver for the seam of core/driver.h.
 *
 * Plain fields model the kernel's side: between sim_point() and the next atomic operation nobody
 * else runs, so "look, then sleep" is one step, as it is in a system call.
 *
 * The driver's only I/O are events (runtime.h) and what stands for other drivers' descriptors. It
 * is asked in the order that driver.h lays down, or the schedule fails; its wakes are latched; now
 * and then, as the seed says, arm() answers "retry" and wait() ends for no reason: both are allowed
 * to.
 */
#include "test/sim/invariants.h"

#include <errno.h>
#include <string.h>

#include "core/driver.h"
#include "core/internal.h"
#include "core/map.h"
#include "core/memory.h"
#include "core/registry.h"
#include "core/runtime.h"
#include "timer/clock.h"

enum {
	FOREIGN_CACHE_BYTES = 64,
	PAGE_BYTES = 4096,
	ZEROED_BYTES = 16384,
	CPUS = 4,
	ODD = 16, /* one in so many arms and waits is answered oddly */
	EVENTS_MAX = 8,
};

static struct {
	struct wf_worker *worker;
	bool has_cache;
	WF_ALIGNED(16) char cache[FOREIGN_CACHE_BYTES];
} locals[SIM_THREADS_MAX + 1];

static unsigned fail_at, requests; /* see sim_runtime_fail_at() */
static bool errors_expected;

void sim_runtime_expect_errors(void)
{
	errors_expected = true;
}

bool sim_runtime_refuses(void)
{
	return ++requests == fail_at;
}

void sim_runtime_fail_at(unsigned n)
{
	requests = 0;
	fail_at = n;
}

bool sim_runtime_has_failed(void)
{
	return fail_at != 0 && requests >= fail_at;
}

/* --- threads --- */

struct wf_worker *wf_worker_self(void)
{
	return locals[sim_thread_self()].worker;
}

void wf_worker_set_self(struct wf_worker *worker)
{
	locals[sim_thread_self()].worker = worker;
}

void *wf_foreign_cache(size_t size)
{
	unsigned self = sim_thread_self();

	WF_CHECK(size <= FOREIGN_CACHE_BYTES);
	if (!locals[self].has_cache) {
		if (sim_runtime_refuses())
			return NULL;
		memset(locals[self].cache, 0, FOREIGN_CACHE_BYTES);
		locals[self].has_cache = true;
	}
	return locals[self].cache;
}

int wf_thread_start(pthread_t *thread_out, void (*fn)(void *arg), void *arg)
{
	if (sim_runtime_refuses())
		return -EAGAIN;
	*thread_out = sim_thread_start(fn, arg);
	return 0;
}

const char *wf_thread_remedy(int error)
{
	(void)error;
	return "";
}

void wf_thread_join(pthread_t thread)
{
	sim_thread_join((unsigned)thread);
}

void wf_thread_name(const char *name)
{
	(void)name;
}

int wf_thread_pin(int cpu)
{
	(void)cpu;
	return 0;
}

uintptr_t wf_thread_id(void)
{
	return (uintptr_t)sim_thread_self() + 1;
}

int wf_thread_get_cpus(cpu_set_t *cpus_out)
{
	(void)cpus_out;
	return -ENOSYS;
}

int wf_thread_set_cpus(const cpu_set_t *cpus)
{
	(void)cpus;
	return -ENOSYS;
}

void wf_thread_unpin(void)
{
}

void wf_thread_yield(void)
{
	sim_point("yield");
}

int wf_thread_number(void)
{
	return (int)sim_thread_self();
}

void wf_thread_signal(pthread_t thread, int signal)
{
	sim_check(false, "signal %d to thread %lu", signal, (unsigned long)thread);
}

void wf_thread_unblock(int signal)
{
	(void)signal;
}

uint64_t wf_thread_ran_ns(int id)
{
	(void)id;
	return 0;
}

long wf_thread_system_call(int id)
{
	(void)id;
	return -1;
}

void wf_futex_wait(wf_atomic_u32 *word, uint32_t value, weft_time deadline)
{
	uint64_t timeout_ns = 0;

	if (deadline == WEFT_FOREVER)
		timeout_ns = UINT64_MAX;
	else if (deadline > sim_now())
		timeout_ns = (uint64_t)(deadline - sim_now());
	(void)wf_sim_futex_sleep(word, value, timeout_ns, __func__, __LINE__);
}

void wf_futex_wake_all(wf_atomic_u32 *word)
{
	wf_sim_futex_wake(word, SIM_THREADS_MAX, __func__, __LINE__);
}

/* --- CPUs, the clock --- */

int wf_cpus_allowed(struct wf_cpus *cpus_out)
{
	cpus_out->count = CPUS;
	for (int i = 0; i < CPUS; i++)
		cpus_out->cpu[i] = i;
	return 0;
}

int wf_cpus_parse(const char *list, struct wf_cpus *cpus_out)
{
	(void)list;
	(void)cpus_out;
	return -EINVAL;
}

int wf_cpus_quota(void)
{
	return -1;
}

int64_t wf_clock_now_ns(void)
{
	return sim_now();
}

void wf_clock_wall(int64_t *seconds_out, int32_t *nanoseconds_out)
{
	*seconds_out = sim_now() / 1000000000;
	*nanoseconds_out = (int32_t)(sim_now() % 1000000000);
}

int wf_clock_set_slack(int64_t slack_ns)
{
	(void)slack_ns;
	return 0;
}

/* --- memory --- */

static void *allocate(void *ctx, size_t alignment, size_t size)
{
	(void)ctx;
	return sim_runtime_refuses() ? NULL : sim_alloc(alignment, size, 0xa5);
}

static void release(void *ctx, void *memory, size_t size)
{
	(void)ctx;
	sim_free(memory, size);
}

static size_t map_page_bytes(void *ctx)
{
	(void)ctx;
	return PAGE_BYTES;
}

/*
 * Zero, but of what is large only the first page, where a slab of stacks has its header; nobody
 * reads the rest unwritten.
 */
static int map_map(void *ctx, size_t bytes, void **memory_out)
{
	(void)ctx;
	*memory_out = sim_runtime_refuses() ? NULL : sim_alloc(PAGE_BYTES, bytes, -1);
	if (*memory_out == NULL)
		return -ENOMEM;
	memset(*memory_out, 0, bytes <= ZEROED_BYTES ? bytes : PAGE_BYTES);
	return 0;
}

static int map_unmap(void *ctx, void *memory, size_t bytes)
{
	(void)ctx;
	sim_free(memory, bytes);
	return 0;
}

static int map_advise(void *ctx, void *memory, size_t bytes, int advice)
{
	(void)ctx;
	(void)memory;
	(void)bytes;
	(void)advice;
	if (!sim_runtime_refuses())
		return 0;
	return sim_random(2) ? -EINVAL : -ENOMEM;
}

static int map_protect(void *ctx, void *memory, size_t bytes)
{
	(void)ctx;
	(void)memory;
	(void)bytes;
	return sim_runtime_refuses() ? -ENOMEM : 0;
}

static int map_resident(void *ctx, void *memory, size_t bytes, unsigned char *pages_out)
{
	(void)ctx;
	(void)memory;
	(void)bytes;
	(void)pages_out;
	return -ENOSYS;
}

static size_t map_count_max(void *ctx)
{
	(void)ctx;
	return 65530;
}

const struct wf_map wf_map_kernel = {map_page_bytes, map_map, map_unmap, map_advise, map_protect,
	map_resident, map_count_max, NULL};

/* --- the driver --- */

struct driver_state {
	bool open, armed, latched;
	unsigned owner;
	struct weft_rt *rt;
	struct wf_wait happened[EVENTS_MAX]; /* not yet claimed, oldest first */
	unsigned happened_count;
	unsigned ready_count; /* watched descriptors that are readable */
};

static struct driver_state drivers[SIM_THREADS_MAX];
static unsigned driver_count;
static unsigned wakes; /* of workers, by anybody */

unsigned sim_runtime_wakes(void)
{
	return wakes;
}

/* Descriptors, as far as drivers have them: readable or not, and who watches. */
static struct {
	bool readable;
	struct driver_state *watcher;
} descriptors[SIM_DESCRIPTORS];

void sim_runtime_readable(int fd, bool readable)
{
	struct driver_state *watcher = descriptors[fd].watcher;

	sim_point(readable ? "write" : "read");
	if (descriptors[fd].readable == readable)
		return;
	descriptors[fd].readable = readable;
	if (!watcher)
		return;
	watcher->ready_count += readable ? 1 : -1u;
	if (readable)
		(void)sim_unblock(watcher, 1);
}

static void check_owner(const struct driver_state *state)
{
	sim_check(state->open, "a driver is used that is closed");
	sim_check(state->owner == sim_thread_self(), "a driver is used by another thread");
}

static int driver_open(struct wf_worker *worker, void **state_out)
{
	struct driver_state *state;

	if (sim_runtime_refuses())
		return -EMFILE;
	state = &drivers[driver_count++];
	*state = (struct driver_state){
		.open = true, .owner = sim_thread_self(), .rt = wf_worker_rt(worker)};
	*state_out = state;
	return 0;
}

/* The events that have happened end their waits. */
static int claim_events(struct driver_state *state, unsigned budget)
{
	unsigned count = 0;

	while (state->happened_count > 0 && count < budget) {
		struct wf_wait wait = state->happened[0];

		state->happened_count--;
		memmove(state->happened, state->happened + 1,
			state->happened_count * sizeof(state->happened[0]));
		(void)wf_wait_claim(state->rt, wait.pid, wait.number);
		count++;
	}
	return (int)count;
}

static int driver_poll(void *arg, unsigned budget, weft_time now)
{
	check_owner(arg);
	sim_invariants_poll();
	(void)now;
	return claim_events(arg, budget);
}

static void driver_flush(void *arg)
{
	check_owner(arg);
	sim_invariants_flush();
}

static weft_time driver_next_deadline(void *arg)
{
	check_owner(arg);
	return WEFT_FOREVER;
}

static int driver_arm(void *arg)
{
	struct driver_state *state = arg;

	check_owner(state);
	sim_check(!state->armed, "armed twice");
	sim_point("driver arm");
	if (state->happened_count > 0 || sim_random(ODD) == 0)
		return WF_DRIVER_RETRY;
	state->armed = true;
	return 0;
}

static int driver_wait(void *arg, weft_time deadline, weft_time now)
{
	struct driver_state *state = arg;

	(void)now;
	check_owner(state);
	sim_check(state->armed, "a wait without arm");
	sim_invariants_sleep(deadline);
	wf_worker_sleep_begin();
	sim_point("driver wait");
	if (!state->latched && state->happened_count == 0 && state->ready_count == 0 &&
		deadline > sim_now() && sim_random(ODD) != 0)
		(void)sim_block(state, deadline == WEFT_FOREVER ? SIM_FOREVER : deadline);
	state->latched = false;
	wf_worker_sleep_end();
	return claim_events(state, EVENTS_MAX);
}

static void driver_disarm(void *arg)
{
	struct driver_state *state = arg;

	check_owner(state);
	sim_check(state->armed, "a disarm without arm");
	state->armed = false;
}

static void driver_wake(void *arg)
{
	struct driver_state *state = arg;

	sim_point("driver wake");
	sim_check(state->open, "a closed driver is woken");
	wakes++;
	state->latched = true;
	(void)sim_unblock(state, 1);
}

static int driver_watch(void *arg, int fd)
{
	check_owner(arg);
	sim_check(fd >= 0 && fd < SIM_DESCRIPTORS && descriptors[fd].watcher == NULL,
		"descriptor %d cannot be watched", fd);
	if (sim_runtime_refuses())
		return -ENOSPC;
	descriptors[fd].watcher = arg;
	return 0;
}

static void driver_stats(const void *arg, struct wf_driver_stats *stats_out)
{
	(void)arg;
	memset(stats_out, 0, sizeof(*stats_out));
}

static void driver_close(void *arg)
{
	struct driver_state *state = arg;

	sim_check(state->open && !state->armed, "closed twice, or while armed");
	state->open = false;
}

const struct wf_driver sim_driver = {.name = "sim",
	.caps = WF_DRIVER_CAN_PARK,
	.open = driver_open,
	.poll = driver_poll,
	.flush = driver_flush,
	.next_deadline = driver_next_deadline,
	.arm = driver_arm,
	.wait = driver_wait,
	.disarm = driver_disarm,
	.wake = driver_wake,
	.watch = driver_watch,
	.stats = driver_stats,
	.close = driver_close};

void sim_event_begin(struct sim_event *event)
{
	wf_wait_begin(&event->wait);
	event->driver = wf_worker_driver_state(wf_worker_self());
}

void sim_event_happen(struct sim_event *event)
{
	struct driver_state *state = event->driver;

	sim_point("event");
	sim_check(state->open && state->happened_count < EVENTS_MAX, "too late, or too many");
	state->happened[state->happened_count++] = event->wait;
	(void)sim_unblock(state, 1);
}

void sim_runtime_await_descriptor(struct weft_rt *rt)
{
	struct driver_state *state = wf_worker_driver_state(wf_rt_worker(rt, 0));
	weft_time at = rt->embed.wake_at;

	sim_point("host sleeps");
	if (!state->latched && state->happened_count == 0 && state->ready_count == 0 &&
		at > sim_now())
		(void)sim_block(state, at == WEFT_FOREVER ? SIM_FOREVER : at);
}

/* --- a simulation's own part --- */

static void log_line(
	void *ctx, enum weft_log_level level, int worker, weft_pid pid, const char *text)
{
	(void)ctx;
	(void)worker;
	(void)pid;
	if (level == WEFT_LOG_ERROR && fail_at == 0 && !errors_expected)
		sim_fail("the runtime logs an error: %s", text);
}

const struct weft_rt_opts *sim_runtime_opts(unsigned workers)
{
	static const struct weft_allocator allocator = {allocate, release, NULL};
	static struct weft_rt_opts opts;

	opts = (struct weft_rt_opts){.size = sizeof(opts),
		.workers = workers,
		.idle = WEFT_IDLE_PARK,
		.pin = WEFT_PIN_OFF,
		.driver = "sim",
		.stall_ns = WEFT_FOREVER, /* no monitor: it would be one more thread that spins */
		.stack_size = 16384,
		.processes_max = 16,
		.allocator = &allocator,
		.log = log_line};
	return &opts;
}

void sim_runtime_reset(void)
{
	memset(locals, 0, sizeof(locals));
	memset(descriptors, 0, sizeof(descriptors));
	driver_count = 0;
	wakes = 0;
	errors_expected = false;
	sim_runtime_fail_at(0);
	sim_registry_reset();
	sim_local_reset();
	sim_signals_reset();
	sim_rcu_reset();
	sim_invariants_begin();
}

void sim_runtime_check(void)
{
	sim_check(sim_allocated_bytes() == 0, "%zu bytes are not freed", sim_allocated_bytes());
	for (unsigned i = 0; i < driver_count; i++)
		sim_check(!drivers[i].open, "a driver is left open");
	for (unsigned i = 0; i <= SIM_THREADS_MAX; i++)
		sim_check(locals[i].worker == NULL, "thread %u is still a worker", i);
}
