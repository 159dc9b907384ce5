/*
 * alarm.c: the wrapper of timer descriptors: what an embedded runtime's host polls is readable when
 * the next timer is due. errno is left alone.
 */
#include <errno.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "core/internal.h"
#include "sync/fault.h"

int wf_alarm_open(void)
{
	int saved = errno;
	int fd = wf_fails(SYS_timerfd_create)
		? -1
		: timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);

	if (fd < 0)
		fd = -errno;
	errno = saved;
	return fd;
}

void wf_alarm_set(int fd, weft_time at)
{
	struct itimerspec spec = { .it_value = { 0, 0 } }; /* off; also takes back what has rung */

	if (at <= 0)
		spec.it_value.tv_nsec = 1;
	else if (at != WEFT_FOREVER)
		spec.it_value = (struct timespec){ at / WEFT_SEC(1), at % WEFT_SEC(1) };
	/* With our own arguments it cannot fail. */
	(void)timerfd_settime(fd, TFD_TIMER_ABSTIME, &spec, NULL);
}

void wf_alarm_close(int fd)
{
	int saved = errno;

	(void)close(fd);
	errno = saved;
}
