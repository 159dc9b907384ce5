/*
 * orphans.c: reaps children whose descriptor was closed while they ran.
 *
 * They belong to no runtime, and may outlive every one. So a thread waits for all of them, in an
 * epoll set; it is started with the first and ends with the last. The set is made once and stays.
 *
 * The lock guards `count` and `served`, for a few instructions. Blocking.
 */
#include "io/orphans.h"

#include <pthread.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/wait.h>

#include "core/internal.h"
#include "io/syscall.h"
#include "sync/spinlock.h"

#define SET_NONE 0 /* sets are stored plus one */

static struct {
	wf_atomic_u32 set;      /* the epoll descriptor, plus one */
	struct wf_spinlock lock;
	unsigned count;         /* orphans not yet reaped */
	bool served;            /* a thread waits for them, or is being started */
} orphans;

/* --- Reaping --- */

/* What waitpid(2) would have told. */
static int status_of(const siginfo_t *info)
{
	if (info->si_code == CLD_EXITED)
		return (info->si_status & 0xff) << 8;
	return info->si_status | (info->si_code == CLD_DUMPED ? WCOREFLAG : 0);
}

static int reap(int pidfd, int options, int *status_out)
{
	siginfo_t info;
	long r;

	memset(&info, 0, sizeof(info));
	do
		r = wf_syscall(SYS_waitid, P_PIDFD, pidfd, &info, options, NULL);
	while (r == -EINTR);
	if (r < 0)
		return r == -EINVAL ? -EBADF : (int)r; /* a negative number */
	if (info.si_pid == 0)
		return 0;
	if (status_out)
		*status_out = status_of(&info);
	return 1;
}

int wf_child_reap(int pidfd, int *status_out)
{
	return reap(pidfd, WEXITED | WNOHANG, status_out);
}

/* --- The thread --- */

static void take_out(int set, int pidfd)
{
	(void)wf_syscall6(SYS_epoll_ctl, set, EPOLL_CTL_DEL, pidfd, 0, 0, 0);
}

/* False: that was the last, and the thread ends. */
static bool count_down(void)
{
	bool more;

	wf_spinlock_lock(&orphans.lock);
	more = --orphans.count > 0;
	orphans.served = more;
	wf_spinlock_unlock(&orphans.lock);
	return more;
}

static void serve(void *arg)
{
	int set = (int)(wf_u32_load_relaxed(&orphans.set) - 1);
	struct epoll_event event;
	bool more = true;

	(void)arg;
	wf_thread_unpin();
	wf_thread_name("weft/orphans");
	while (more) {
		if (wf_syscall(SYS_epoll_pwait, set, &event, 1, -1, NULL, 0) <= 0)
			continue;
		/* Waits for the tracer of one that is traced. It has ended: not for long. */
		(void)reap(event.data.fd, WEXITED, NULL);
		/* By itself it would stay: whom it was copied from may still have the open file. */
		take_out(set, event.data.fd);
		(void)wf_sys_close(event.data.fd);
		more = count_down();
	}
}

/* --- Adopting --- */

static int set_get(void)
{
	uint32_t none = SET_NONE;
	/* Y1: acquire, with its CAS: the set exists. */
	uint32_t set = wf_u32_load_acquire(&orphans.set);
	int made;

	if (set != SET_NONE)
		return (int)(set - 1);
	made = (int)wf_syscall(SYS_epoll_create1, EPOLL_CLOEXEC);
	if (made < 0)
		return made;
	/* Y1: release. */
	if (wf_u32_cas(&orphans.set, &none, (uint32_t)made + 1))
		return made;
	(void)wf_sys_close(made);
	return (int)(none - 1);
}

static int start_thread(void)
{
	pthread_t thread;
	int r = wf_thread_start(&thread, serve, NULL);

	if (r == 0)
		pthread_detach(thread);
	return r == -EAGAIN ? -ENOMEM : r; /* a limit, not "would wait" */
}

/* Counted first: it may end at once. True: the caller is to start the thread. */
static bool count_up(void)
{
	bool start;

	wf_spinlock_lock(&orphans.lock);
	orphans.count++;
	start = !orphans.served;
	orphans.served = true;
	wf_spinlock_unlock(&orphans.lock);
	return start;
}

/*
 * Nothing came of it. No thread: whoever relied on it meanwhile waits for the next to be adopted.
 * With one that has nothing left to wait for: it does so all the same.
 */
static void count_undo(bool thread)
{
	wf_spinlock_lock(&orphans.lock);
	orphans.count--;
	orphans.served = thread;
	wf_spinlock_unlock(&orphans.lock);
}

int wf_orphans_adopt(int pidfd)
{
	struct epoll_event event = { .events = EPOLLIN, .data.fd = pidfd };
	int set = set_get();
	bool start;
	int r;

	if (set < 0)
		return set;
	start = count_up();
	r = (int)wf_syscall(SYS_epoll_ctl, set, EPOLL_CTL_ADD, pidfd, &event);
	if (r < 0) {
		count_undo(!start);
		return r;
	}
	r = start ? start_thread() : 0;
	if (r < 0) {
		take_out(set, pidfd);
		count_undo(false);
	}
	return r;
}
