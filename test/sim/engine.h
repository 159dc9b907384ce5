/*
 * engine.h: between engine.c, which runs one schedule, and explore.c, which runs many.
 */
#ifndef WF_TEST_SIM_ENGINE_H
#define WF_TEST_SIM_ENGINE_H

#include "test/sim/sim.h"

/*
 * What may go on at a decision: bit i: virtual thread i; bit SIM_THREADS_MAX + i: the oldest store
 * in its buffer; the last: time, up to the earliest deadline of a sleeper.
 */
enum {
	SIM_BUFFERS = SIM_THREADS_MAX,
	SIM_CLOCK = 2 * SIM_THREADS_MAX,
	SIM_ENTITIES,
	SIM_CHANGES_MAX = 6,
	SIM_PREEMPTIONS_MAX = 4096,
};

enum sim_strategy { SIM_RANDOM_WALK, SIM_PCT, SIM_ROUND_ROBIN, SIM_LISTED };

/*
 * A decision other than "go on": taken when `thread` (SIM_THREADS_MAX: nobody) stood before its
 * operation number `point`, as the `turn`th of its decisions there.
 */
struct sim_preemption {
	uint32_t point;
	uint16_t turn;
	uint8_t thread;
	uint8_t chosen;
};

struct sim_plan {
	enum sim_strategy strategy;
	uint64_t seed;    /* of what the threads draw */
	uint64_t shuffle; /* of decisions and priorities */
	/* random walk: of 256 decisions so many go on with the thread without asking. */
	unsigned stay;
	/* round robin: operations a turn. */
	unsigned quantum;
	/* PCT: at these steps the strongest becomes the weakest. */
	unsigned change_count;
	uint32_t changes[SIM_CHANGES_MAX];
	/*
	 * listed: these preemptions and no others. eager: stores are seen at once unless a
	 * preemption comes before; otherwise as late as can be.
	 */
	bool eager;
	const struct sim_preemption *listed;
	unsigned listed_count;
};

struct sim_outcome {
	bool failed;
	uint64_t hash;
	uint32_t steps;
	unsigned preemption_count[2]; /* recorded: lazily, eagerly */
	char message[SIM_MESSAGE_BYTES];
};

/* The plan a seed stands for. `steps`: how long a schedule of this scenario is. */
void sim_plan_make(struct sim_plan *plan, uint64_t seed, uint32_t steps);

/* The preemptions of one schedule, told twice: see `eager` of the plan. */
struct sim_recording {
	struct sim_preemption preemptions[2][SIM_PREEMPTIONS_MAX];
};

/* Runs one schedule. recording: or NULL; traced: keep the last operations for sim_trace_print(). */
void sim_schedule(const struct sim_scenario *scenario, const struct sim_plan *plan,
	struct sim_recording *recording, bool traced, struct sim_outcome *outcome_out);

/* Of the last schedule, if it was traced: the last operations, all and by thread. */
void sim_trace_print(void);

uint64_t sim_mix(uint64_t *state);

#endif
