/*
 * scene.h: what simulations of the whole runtime are written with: one runtime, processes that
 * check themselves, gates between threads, and "until everybody sleeps".
 *
 * A BODY is one process of a scenario. It is ENTERED and LEFT around what runs between two calls
 * that may park, so that two workers in one process are seen.
 */
#ifndef WF_TEST_SIM_SCENE_H
#define WF_TEST_SIM_SCENE_H

#include <errno.h>
#include <string.h>

#include "core/runtime.h"
#include "sync/futex.h"
#include "test/sim/runtime.h"

enum { SCENE_STEPS_MAX = 100000, SCENE_BODIES = 12 };

struct body {
	weft_pid pid;
	unsigned inside;  /* how many run it now */
	unsigned runs;    /* begun */
	unsigned ended;
	unsigned dropped; /* calls of its arg_dtor */
};

/* Closed at first. Opened once; who waits blocks its thread (a process: its worker). */
struct gate {
	wf_atomic_u32 word;
};

extern struct scene {
	weft_rt *rt;
	struct body bodies[SCENE_BODIES];
	bool settling;
} scene;

/* A scenario of a file that has a function setup(), which begins with scene_reset(). */
#define SCENE(name_, text_, threads_, thread_)                                     \
	static const struct sim_scenario name_ = {text_, threads_, setup, thread_, \
		scene_quiet, scene_check, SCENE_STEPS_MAX}

void scene_reset(void);
enum sim_quiet scene_quiet(void);
void scene_check(void);

void scene_create(unsigned workers);
void scene_destroy(void);
/*
 * Until everybody else sleeps, with no deadline left. Then all workers are parked, nobody searches,
 * and nothing is queued anywhere, or the schedule fails.
 */
void scene_settle(void);

void gate_open(struct gate *gate);
void gate_await(struct gate *gate);
bool gate_is_open(struct gate *gate);

/* Its body runs it: once, ends once. `end` returns the body's number, the result of most. */
struct body *body_begin(void *arg);
int body_end(struct body *body);
void body_enter(struct body *body);
void body_leave(struct body *body);
int body_number(const struct body *body);
/* The call, left and entered around. */
int body_park(struct body *body, weft_time deadline);
int body_yield(struct body *body);

/* What a joiner, in a process or not, must get: 0 and the body's number. */
void body_join(struct body *body);
/* From any thread; must succeed. */
void body_spawn(struct body *body, weft_fn fn, const struct weft_spawn_opts *opts);

/* Counts. arg_dtor. */
void body_drop(void *arg);

/* A process that does nothing else. weft_fn. */
int body_leaf(void *arg);

/* worker: from 1, 0: any. */
struct weft_spawn_opts scene_opts(unsigned worker, unsigned flags);
extern const struct weft_spawn_opts scene_movable;

#endif
