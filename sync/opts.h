/* opts.h: reading options structs of any release. No state, any thread, never blocks. */
#ifndef WF_SYNC_OPTS_H
#define WF_SYNC_OPTS_H

#include <stddef.h>

/*
 * Copies options of any release into ours: shorter ones are filled up with zeroes. -EINVAL for a
 * size too small, or a longer one with fields set that this release lacks.
 */
int wf_opts_read(const void *opts, size_t opts_size, void *out, size_t out_size);

#endif
