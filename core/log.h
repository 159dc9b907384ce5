/* log.h: set-up of the log, and errors as data. wf_log() itself is in core/sched.h. */
#ifndef WF_CORE_LOG_H
#define WF_CORE_LOG_H

#include <stdarg.h>

#include <weft.h>

#include "sync/check.h"

void wf_log_setup(struct weft_rt *rt, weft_log_fn log, void *ctx);
void wf_log_line(struct weft_rt *rt, enum weft_log_level level, int worker, const char *text);
/* About a process that is not the caller's. */
void wf_log_about(struct weft_rt *rt, enum weft_log_level level, int worker, weft_pid pid,
	const char *text);

/*
 * An error before the runtime exists: a line as its log would get it, and opts->error. Both say the
 * text of `error` too. Returns `error`.
 */
int wf_complain(
	const struct weft_rt_opts *opts, const char *step, int error, const char *text);

/* Fills an error; appends the text of `code` to the message. */
void wf_error_fill(struct weft_error *error, int worker, const char *step, int code,
	const char *format, va_list args) WF_PRINTF(5, 0);

#endif
