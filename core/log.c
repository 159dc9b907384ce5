/* log.c: the log callback, and its default: lines on stderr at the level WEFT_LOG names. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "core/runtime.h"

enum {
	LINE_MAX_BYTES = 512,
};

static const char *const level_names[] = {
	[WEFT_LOG_ERROR] = "error",
	[WEFT_LOG_WARN] = "warn",
	[WEFT_LOG_INFO] = "info",
	[WEFT_LOG_DEBUG] = "debug",
};

static void log_stderr(
	void *ctx, enum weft_log_level level, int worker, weft_pid pid, const char *text)
{
	char id[WEFT_PID_TEXT_MAX];

	(void)ctx;
	/* One write: lines of several threads do not mix. */
	if (!weft_pid_is_none(pid))
		fprintf(stderr, "weft: %s: worker %d, process %s: %s\n", level_names[level], worker,
			weft_pid_format(pid, id), text);
	else if (worker >= 0)
		fprintf(stderr, "weft: %s: worker %d: %s\n", level_names[level], worker, text);
	else
		fprintf(stderr, "weft: %s: %s\n", level_names[level], text);
}

/* The level of the default log; a callback of the host's gets everything. */
static enum weft_log_level level_from_environment(void)
{
	const char *value = getenv("WEFT_LOG");

	for (unsigned i = WEFT_LOG_ERROR; value && i <= WEFT_LOG_DEBUG; i++)
		if (strcmp(value, level_names[i]) == 0)
			return (enum weft_log_level)i;
	return WEFT_LOG_WARN;
}

void wf_log_setup(struct weft_rt *rt, weft_log_fn log, void *ctx)
{
	rt->log = log ? log : log_stderr;
	rt->log_ctx = ctx;
	rt->log_level = log ? WEFT_LOG_DEBUG : level_from_environment();
}

void wf_log_about(struct weft_rt *rt, enum weft_log_level level, int worker, weft_pid pid,
	const char *text)
{
	int saved = errno;

	if (level <= rt->log_level)
		rt->log(rt->log_ctx, level, worker, pid, text);
	errno = saved;
}

void wf_log_line(struct weft_rt *rt, enum weft_log_level level, int worker, const char *text)
{
	wf_log_about(rt, level, worker, weft_self(), text);
}

void wf_log(struct weft_rt *rt, enum weft_log_level level, const char *format, ...)
{
	struct wf_worker *self = wf_worker_self();
	char text[LINE_MAX_BYTES];
	va_list args;

	if (level > rt->log_level)
		return;
	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	wf_log_line(rt, level, self && self->rt == rt ? (int)self->number : -1, text);
}

/* --- errors --- */

void wf_error_fill(struct weft_error *error, int worker, const char *step, int code,
	const char *format, va_list args)
{
	int length;

	error->error = code;
	error->worker = worker;
	error->step = step;
	length = vsnprintf(error->text, sizeof error->text, format, args);
	if (length >= 0 && (size_t)length + 2 < sizeof error->text)
		snprintf(error->text + length, sizeof error->text - (size_t)length, ": %s",
			weft_strerror(code));
}

int wf_complain(
	const struct weft_rt_opts *opts, const char *step, int error, const char *text)
{
	struct weft_error filled = { .error = error, .worker = -1, .step = step };
	weft_pid none = { 0 };

	snprintf(filled.text, sizeof filled.text, "%s: %s", text, weft_strerror(error));
	if (opts->error)
		*opts->error = filled;
	if (opts->log)
		opts->log(opts->log_ctx, WEFT_LOG_ERROR, -1, none, filled.text);
	else
		log_stderr(NULL, WEFT_LOG_ERROR, -1, none, filled.text);
	return error;
}

void wf_rt_error(
	struct weft_rt *rt, int worker, const char *step, int error, const char *format, ...)
{
	struct weft_error filled;
	char line[LINE_MAX_BYTES];
	va_list args;
	bool told;

	va_start(args, format);
	wf_error_fill(&filled, worker, step, error, format, args);
	va_end(args);
	wf_spinlock_lock(&rt->errors_lock);
	/* A runtime that cannot start says why once, not once for each worker. */
	told = rt->error_count > 0 && !wf_u32_load_relaxed(&rt->ready);
	if (rt->error_count < WF_ERRORS_MAX)
		rt->errors[rt->error_count++] = filled;
	wf_spinlock_unlock(&rt->errors_lock);
	if (told)
		return;
	snprintf(line, sizeof line, "%s: %s", step, filled.text);
	wf_log_line(rt, WEFT_LOG_ERROR, worker, line);
}

int weft_rt_error(weft_rt *rt, unsigned n, struct weft_error *error_out)
{
	int r = -ENOENT;

	wf_spinlock_lock(&rt->errors_lock);
	if (n < rt->error_count) {
		*error_out = rt->errors[n];
		r = 0;
	}
	wf_spinlock_unlock(&rt->errors_lock);
	return r;
}
