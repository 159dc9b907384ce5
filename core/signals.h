/*
 * signals.h: who owns the signals of the OS process, and hands them to the processes that have
 * subscribed. The owner is a coordinator (coordinator.h), which alone reads them.
 */
#ifndef WF_CORE_SIGNALS_H
#define WF_CORE_SIGNALS_H

#include <weft.h>

enum {
#if defined(WF_ATOMICS_SIM)
	WF_SUBSCRIBERS_MAX = 3,
#else
	WF_SUBSCRIBERS_MAX = 256,
#endif
};

/* What an owner owns. STOP: begin a stop when nobody has subscribed; so does HUP in weft_main(). */
#define WF_SIGNALS_STOP \
	(WEFT_SIGNAL_BIT(SIGINT) | WEFT_SIGNAL_BIT(SIGTERM) | WEFT_SIGNAL_BIT(SIGQUIT))
#define WF_SIGNALS \
	(WF_SIGNALS_STOP | WEFT_SIGNAL_BIT(SIGHUP) | WEFT_SIGNAL_BIT(SIGUSR1) | \
		WEFT_SIGNAL_BIT(SIGUSR2))

/* One owner at a time. 0 or -EBUSY. Any thread. */
int wf_signals_own(void);

/* Ends every subscription: who waits gets -ENOTSUP. The owner. */
void wf_signals_disown(void);

/* Hands one signal to everybody subscribed to it. Returns how many that were. The owner. */
unsigned wf_signals_deliver(int signo);

#endif
