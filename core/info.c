/* info.c: what the library says about itself: version, error texts, tuning. */
#include <errno.h>
#include <string.h>

#include <weft.h>

#define TEXT(x)     #x
#define NUMBER(x)   TEXT(x)

const char *weft_version(void)
{
	return NUMBER(WEFT_VERSION_MAJOR) "." NUMBER(WEFT_VERSION_MINOR)
		"." NUMBER(WEFT_VERSION_PATCH);
}

/* The texts where Weft means something more precise than the system's. */
static const struct {
	int error;
	const char *text;
} texts[] = {
	{ 0, "success" },
	{ ETIME, "deadline passed" },
	{ EAGAIN, "would have to wait, or a limit is reached" },
	{ ECANCELED, "cancelled" },
	{ EINTR, "stopped by a signal" },
	{ ENOENT, "unknown name" },
	{ ENOSPC, "no room left, or nested too deeply" },
	{ ESRCH, "no such process" },
	{ EPERM, "not allowed here (outside a process?)" },
	{ ESHUTDOWN, "the runtime is stopping" },
	{ ETIMEDOUT, "timed out" },
	{ EBUSY, "somebody else waits for it, or it is in use" },
	{ EDEADLK, "would wait for itself" },
};

const char *weft_strerror(int error)
{
	const char *text;

	for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
		if (texts[i].error == -error)
			return texts[i].text;
	text = strerrordesc_np(-error);
	return text ? text : "unknown error";
}

const char *weft_build_config(void)
{
	return WF_BUILD_CONFIG;
}
