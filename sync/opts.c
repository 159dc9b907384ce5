/* opts.c: options structs that start with their size, across releases. */
#include "sync/opts.h"

#include <errno.h>
#include <string.h>

int wf_opts_read(const void *opts, size_t opts_size, void *out, size_t out_size)
{
	const unsigned char *bytes = opts;

	if (opts_size < sizeof(size_t))
		return -EINVAL;
	for (size_t i = out_size; i < opts_size; i++)
		if (bytes[i])
			return -EINVAL;
	memset(out, 0, out_size);
	memcpy(out, opts, opts_size < out_size ? opts_size : out_size);
	return 0;
}
