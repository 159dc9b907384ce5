/*
 * Goal: workers fit the machine they are given: its CPUs in an order that makes sense, a cgroup's
 * quota, and no spinning where it would only take time from the work it waits for.
 * Method: the functions of core/cpu.c beside what the kernel says; whole runtimes whose spins are
 * counted while they wait for short gaps. Quotas need a cgroup of our own; where none can be made
 * the test is skipped.
 */
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/internal.h"
#include "core/runtime.h"
#include "test/runtime.h"

/* ---- CPUs ----------------------------------------------------------------------------------- */

Test(cpu, allowed_are_those_of_the_thread_each_once)
{
	struct wf_cpus cpus;
	cpu_set_t set;

	cr_assert_eq(sched_getaffinity(0, sizeof set, &set), 0);
	cr_assert_eq(wf_cpus_allowed(&cpus), 0);
	cr_assert_eq(cpus.count, (unsigned)CPU_COUNT(&set));
	for (unsigned i = 0; i < cpus.count; i++) {
		cr_assert(CPU_ISSET((size_t)cpus.cpu[i], &set), "CPU %d", cpus.cpu[i]);
		CPU_CLR((size_t)cpus.cpu[i], &set);
	}
}

static void list_is(const char *list, unsigned count, const int *expected)
{
	struct wf_cpus cpus;

	cr_assert_eq(wf_cpus_parse(list, &cpus), 0, "%s", list);
	cr_assert_eq(cpus.count, count, "%s", list);
	for (unsigned i = 0; i < count; i++)
		cr_assert_eq(cpus.cpu[i], expected[i], "%s", list);
}

Test(cpu, lists_keep_their_order)
{
	list_is("0", 1, (int[]){0});
	list_is("3,1,2", 3, (int[]){3, 1, 2});
	list_is("0,2-5", 5, (int[]){0, 2, 3, 4, 5});
	list_is("7-7,1023", 2, (int[]){7, 1023});
	list_is("1,1", 2, (int[]){1, 1});
}

/* ---- Spinning ------------------------------------------------------------------------------- */

static int parks_and_is_woken(void *arg)
{
	for (int i = *(int *)arg; i > 0; i--)
		cr_assert_eq(weft_park(WEFT_FOREVER), 0);
	return 1;
}

/* How often workers span while they waited for wakes that came at once. */
static uint64_t spins_of(weft_rt *rt)
{
	int wakes = 200;
	uint64_t spins = 0;
	weft_pid pid;

	cr_assert_eq(weft_rt_spawn(rt, parks_and_is_woken, &wakes, NULL, &pid), 0);
	while (weft_wake(pid) == 0 && weft_try_join(pid, NULL) == -EAGAIN)
		sched_yield();
	for (unsigned i = 0; i < rt->worker_count; i++)
		spins += wf_u64_load_relaxed(&rt->workers[i].counters.spins);
	return spins;
}

static bool spins(const struct weft_rt_opts *opts)
{
	weft_rt *rt = runtime_new_with(opts);
	bool may_spin = rt->may_spin;

	/* One that may spin need not: its gaps may be long here. */
	if (!may_spin)
		cr_assert_eq(spins_of(rt), 0);
	runtime_end(rt);
	return may_spin;
}

static void use_one_cpu(void)
{
	struct wf_cpus cpus;
	cpu_set_t set;

	cr_assert_eq(wf_cpus_allowed(&cpus), 0);
	CPU_ZERO(&set);
	CPU_SET((size_t)cpus.cpu[0], &set);
	cr_assert_eq(sched_setaffinity(0, sizeof set, &set), 0);
}

Test(cpu, more_workers_than_cpus_never_spin, .timeout = 30)
{
	struct wf_cpus cpus;
	char twice[32];

	cr_assert_eq(wf_cpus_allowed(&cpus), 0);
	if (cpus.count < WF_WORKERS_MAX)
		cr_assert(!spins(&(struct weft_rt_opts){.workers = cpus.count + 1}));
	snprintf(twice, sizeof twice, "%d,%d", cpus.cpu[0], cpus.cpu[0]);
	cr_assert(!spins(&(struct weft_rt_opts){.cpus = twice}), "two on one CPU");
	use_one_cpu();
	cr_assert(!spins(&(struct weft_rt_opts){.workers = 2}), "a cpuset of one CPU");
	if (wf_cpus_quota() < 0)
		cr_assert(spins(&(struct weft_rt_opts){.workers = 1}));
}

/* ---- Quotas --------------------------------------------------------------------------------- */

struct cgroup {
	char path[96], inner[112];
	bool version_2;
};

static bool put(const char *folder, const char *name, const char *text)
{
	char path[160];
	FILE *file;
	bool good;

	snprintf(path, sizeof path, "%s/%s", folder, name);
	file = fopen(path, "we");
	if (!file)
		return false;
	good = fputs(text, file) >= 0;
	return fclose(file) == 0 && good;
}

static bool set_quota(const struct cgroup *group, const char *folder, long quota_us)
{
	char text[48];

	snprintf(text, sizeof text, group->version_2 ? "%ld 100000" : "%ld", quota_us);
	return put(folder, group->version_2 ? "cpu.max" : "cpu.cfs_quota_us", text);
}

/* A group, and one in it. False: not here. */
static bool cgroup_make(struct cgroup *group)
{
	static const char *const roots[] = {"/sys/fs/cgroup/cpu", "/sys/fs/cgroup"};

	for (unsigned i = 0; i < 2; i++) {
		group->version_2 = i == 1;
		snprintf(group->path, sizeof group->path, "%s/weft-test-cpu-%d", roots[i],
			(int)getpid());
		snprintf(group->inner, sizeof group->inner, "%s/inner", group->path);
		if (mkdir(group->path, 0755) < 0)
			continue;
		if (group->version_2)
			(void)put(group->path, "cgroup.subtree_control", "+cpu");
		if (mkdir(group->inner, 0755) == 0 && set_quota(group, group->inner, 150000))
			return true;
		rmdir(group->inner);
		rmdir(group->path);
	}
	return false;
}

/* The group goes with its last process: the removal is retried until the kernel has noticed. */
static void cgroup_remove(const struct cgroup *group)
{
	char root[96];

	snprintf(root, sizeof root, "%s", group->path);
	*strrchr(root, '/') = '\0';
	cr_assert(put(root, "cgroup.procs", "0"));
	UNTIL_FOREIGN(rmdir(group->inner) == 0 || errno != EBUSY);
	cr_assert_eq(rmdir(group->path), 0);
}

Test(cpu, quotas_bound_workers_and_below_one_cpu_nobody_spins, .timeout = 60)
{
	struct cgroup group;
	weft_rt *rt;

	if (wf_cpus_quota() >= 0)
		cr_skip_test("a quota is set already");
	if (!cgroup_make(&group))
		cr_skip_test("no cgroup with a quota can be made here");
	cr_assert(put(group.inner, "cgroup.procs", "0"));
	cr_expect_eq(wf_cpus_quota(), 1, "1.5 CPUs");
	rt = runtime_new(0);
	cr_expect_eq(weft_rt_workers(rt), 1);
	runtime_end(rt);
	cr_expect(!spins(&(struct weft_rt_opts){.workers = 2}), "two workers, 1.5 CPUs");
	cr_assert(set_quota(&group, group.inner, 50000));
	cr_expect_eq(wf_cpus_quota(), 0, "half a CPU");
	rt = runtime_new(0);
	cr_expect_eq(weft_rt_workers(rt), 1);
	runtime_end(rt);
	cr_expect(!spins(&(struct weft_rt_opts){.workers = 1}), "half a CPU");
	/* One above it may be the narrower. */
	cr_assert(set_quota(&group, group.inner, 400000));
	cr_expect_eq(wf_cpus_quota(), 4);
	cr_assert(set_quota(&group, group.path, 400000));
	cr_assert(set_quota(&group, group.inner, 300000));
	cr_expect_eq(wf_cpus_quota(), 3);
	cr_assert(set_quota(&group, group.inner, -1) || group.version_2);
	cr_expect_eq(wf_cpus_quota(), group.version_2 ? 3 : 4, "the outer one's");
	cgroup_remove(&group);
}
