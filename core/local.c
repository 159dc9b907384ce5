/*
 * local.c: values of a process's own (weft_local_* of <weft/fail.h>).
 *
 * Keys are the program's, since libraries make theirs before there is a runtime: a count and the
 * destructors, which grow and never change. Making one takes a spinlock; using one takes one load.
 * Values are in a block that a process gets with its first one; it is the runtime's memory, and is
 * given back when the destructors are through.
 */
#include <errno.h>
#include <string.h>

#include "core/cleanup.h"
#include "core/runtime.h"
#include "sync/spinlock.h"

enum {
	ROUNDS_MAX = 4, /* of destructors, while they set values again */
};

static struct {
	struct wf_spinlock lock; /* makers of keys */
	wf_atomic_u32 count;
	void (*dtors[WEFT_LOCALS_MAX])(void *value);
} keys;

struct wf_locals {
	uint32_t next;   /* of the round of destructors that is going on */
	bool called;     /* that round has called one */
	unsigned rounds; /* ended */
	void *values[WEFT_LOCALS_MAX];
};

int weft_local_create(weft_local *key_out, void (*dtor)(void *value))
{
	uint32_t count;
	int r = -EAGAIN;

	if (!key_out)
		return -EINVAL;
	wf_spinlock_lock(&keys.lock);
	count = wf_u32_load_relaxed(&keys.count);
	if (count < WEFT_LOCALS_MAX) {
		keys.dtors[count] = dtor;
		/* B7: release, with B8 in key_count(): who may use the key sees its destructor. */
		wf_u32_store_release(&keys.count, count + 1);
		key_out->raw = count + 1;
		r = 0;
	}
	wf_spinlock_unlock(&keys.lock);
	return r;
}

static uint32_t key_count(void)
{
	/* B8: acquire, with B7 in weft_local_create(). */
	return wf_u32_load_acquire(&keys.count);
}

/* Its values; made if it has none yet. NULL: no memory. */
static struct wf_locals *locals_of(struct weft_rt *rt, struct wf_proc *p)
{
	struct wf_ext *ext = wf_proc_ext(rt, p);

	if (!ext || ext->locals)
		return ext ? ext->locals : NULL;
	ext->locals = wf_alloc(rt, WF_CACHE_LINE, sizeof *ext->locals);
	if (ext->locals)
		memset(ext->locals, 0, sizeof *ext->locals);
	return ext->locals;
}

int weft_local_set(weft_local key, void *value)
{
	struct wf_worker *worker = wf_worker_self();
	struct wf_proc *p = worker ? worker->current : NULL;
	struct wf_locals *locals;

	if (!p || (p->ext && p->ext->locals_over))
		return -EPERM;
	if (key.raw == 0 || key.raw > key_count())
		return -EINVAL;
	locals = locals_of(worker->rt, p);
	if (!locals)
		return -ENOMEM;
	locals->values[key.raw - 1] = value;
	return 0;
}

void *weft_local_get(weft_local key)
{
	struct wf_worker *worker = wf_worker_self();
	struct wf_proc *p = worker ? worker->current : NULL;

	if (!p || !p->ext || !p->ext->locals || key.raw - 1 >= WEFT_LOCALS_MAX)
		return NULL;
	return p->ext->locals->values[key.raw - 1];
}

/* The runtime's memory again, and no more values for this process. */
static void forget(struct wf_ext *ext)
{
	wf_free(wf_worker_rt(wf_worker_self()), ext->locals, sizeof *ext->locals);
	ext->locals = NULL;
	ext->locals_over = true;
}

/*
 * Y2: one round. Each value is taken out before its destructor is called, and the round knows how
 * far it came: where that one fails, the round goes on behind it.
 */
bool wf_locals_destroy(struct wf_proc *p)
{
	struct wf_locals *locals = p->ext ? p->ext->locals : NULL;
	bool called;

	if (!locals) {
		if (p->ext)
			p->ext->locals_over = true;
		return false;
	}
	while (locals->next < key_count()) {
		uint32_t i = locals->next++;
		void *value = locals->values[i];

		locals->values[i] = NULL;
		if (!value || !keys.dtors[i])
			continue;
		locals->called = true;
		keys.dtors[i](value);
	}
	called = locals->called;
	locals->called = false;
	locals->next = 0;
	if (!called || ++locals->rounds == ROUNDS_MAX)
		forget(p->ext);
	return called;
}
