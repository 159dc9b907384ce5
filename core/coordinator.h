/*
 * coordinator.h: the thread in weft_main(), or in weft_rt_run() of a runtime with WEFT_RT_SIGNALS:
 * owns the signals (signals.h), reads them, and waits for the runtime's end.
 */
#ifndef WF_CORE_COORDINATOR_H
#define WF_CORE_COORDINATOR_H

#include <pthread.h>
#include <signal.h>

#include <weft.h>

struct wf_coordinator {
	int signal_fd;      /* -1: not the owner */
	bool is_main;       /* of weft_main() */
	pthread_t thread;   /* whose mask was changed */
	sigset_t mask;      /* as it was */
	weft_time grace_ns; /* of a stop by a signal */
	weft_time deadline; /* weft_main(), in a stop: when survivors are given up on */
};

/* Zero is a valid state, but for the descriptor. */
#define WF_COORDINATOR_NONE { .signal_fd = -1 }

/*
 * Becomes the owner: the signals are blocked in the calling thread, and read from a descriptor.
 * grace_ns 0: the default. 0, or a negative errno, recorded as the runtime's error. errno is
 * changed.
 */
int wf_coordinator_open(struct weft_rt *rt, weft_time grace_ns);

/*
 * A stop has begun, or every worker has ended: the coordinator, if there is one, is to look. Any
 * thread while the runtime lives; async-signal-safe. errno is left alone.
 */
void wf_coordinator_tell(struct weft_rt *rt);

/*
 * Serves signals until every worker has ended: 0. Of weft_main(), -ETIMEDOUT when something
 * outlives its cancellation, whoever has begun the stop; it is on the log then.
 */
int wf_coordinator_serve(struct weft_rt *rt);

/* Gives the signals back, and its mask to the thread that has opened. Idempotent. */
void wf_coordinator_release(struct weft_rt *rt);

/* The same, and the rest, after the workers have ended. Idempotent. */
void wf_coordinator_close(struct weft_rt *rt);

#endif
