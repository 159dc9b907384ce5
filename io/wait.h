/* wait.h: what fd.c needs of wait.c when a use of a number ends. */
#ifndef WF_IO_WAIT_H
#define WF_IO_WAIT_H

#include "io/fd.h"

/* Both under the entry's lock. */
bool wf_fd_has_waiters(const struct wf_fd_entry *entry);
void wf_fd_home_clear(struct wf_fd_entry *entry);

/* Takes everybody out and claims them: they look at the word. Without the lock; any thread. */
void wf_fd_wake_all(struct wf_fd_entry *entry);

/* Before an entry without a home is given back: takes out the names that tasks have left. */
void wf_fd_tell_tasks(struct wf_fd_entry *entry);

/* Takes the registration out of the entry, and removes it where that is ours to do. */
void wf_fd_deregister(struct wf_fd_entry *entry, int fd);

#endif
