/* orphans.h: children that nobody waits for any more. */
#ifndef WF_IO_ORPHANS_H
#define WF_IO_ORPHANS_H

/*
 * Reaps the child when it ends, and closes its descriptor (a pidfd), which is the orphans' from
 * success on. 0 or -errno. Any thread; never waits.
 */
int wf_orphans_adopt(int pidfd);

/* Takes the status away of a child that has ended: 1; 0: it still runs; -ECHILD, -EBADF, … */
int wf_child_reap(int pidfd, int *status_out);

#endif
