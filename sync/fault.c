/* fault.c: the hook of sync/fault.h. Nothing in release. */
#include "sync/fault.h"

#if WF_FAULTS

wf_atomic_ptr wf_fault_hook;

long wf_fault_ask(void *hook, long call)
{
	return ((wf_fault_hook_fn)hook)(call);
}

#endif
