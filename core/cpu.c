/*
 * cpu.c: which CPUs there are for us: cpuset, topology, quota. Reads /proc and /sys once at start;
 * what cannot be read is taken as absent.
 */
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

#include "core/internal.h"
#include "sync/fault.h"

#define SYS_CPU "/sys/devices/system/cpu/cpu%d/"

static FILE *open_file(const char *path)
{
	return wf_fails(SYS_openat) ? NULL : fopen(path, "re");
}

/* The first number in a small file, or `missing`. */
static long read_number(const char *path, long missing)
{
	FILE *file = open_file(path);
	long value;

	if (!file)
		return missing;
	if (fscanf(file, "%ld", &value) != 1)
		value = missing;
	fclose(file);
	return value;
}

struct place {
	int cpu;
	long sibling; /* 0: the first thread of its core, 1: the second, … */
	long package;
};

static int place_compare(const void *a, const void *b)
{
	const struct place *x = a, *y = b;

	if (x->sibling != y->sibling)
		return x->sibling < y->sibling ? -1 : 1;
	if (x->package != y->package)
		return x->package < y->package ? -1 : 1;
	return x->cpu - y->cpu;
}

/* How many CPUs of the list `text` ("0,4" or "0-1") come before `cpu`. */
static long position_in(const char *text, int cpu)
{
	struct wf_cpus siblings;

	if (wf_cpus_parse(text, &siblings) < 0)
		return 0;
	for (unsigned i = 0; i < siblings.count; i++)
		if (siblings.cpu[i] == cpu)
			return i;
	return 0;
}

static void place_read(struct place *place)
{
	char path[128], text[256];
	FILE *file;

	snprintf(path, sizeof path, SYS_CPU "topology/physical_package_id", place->cpu);
	place->package = read_number(path, 0);
	place->sibling = 0;
	snprintf(path, sizeof path, SYS_CPU "topology/thread_siblings_list", place->cpu);
	file = open_file(path);
	if (!file)
		return;
	if (fgets(text, sizeof text, file)) {
		text[strcspn(text, "\n")] = '\0';
		place->sibling = position_in(text, place->cpu);
	}
	fclose(file);
}

int wf_cpus_allowed(struct wf_cpus *cpus_out)
{
	struct place places[CPU_SETSIZE];
	unsigned count = 0;
	cpu_set_t set;

	if (wf_fails(SYS_sched_getaffinity) || sched_getaffinity(0, sizeof set, &set) < 0)
		return -errno;
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, &set)) {
			places[count].cpu = cpu;
			place_read(&places[count++]);
		}
	qsort(places, count, sizeof places[0], place_compare);
	cpus_out->count = count;
	for (unsigned i = 0; i < count; i++)
		cpus_out->cpu[i] = places[i].cpu;
	return 0;
}

/* A number below WF_CPUS_MAX at *text, which is moved behind it. -EINVAL. */
static int parse_cpu(const char **text)
{
	int value = 0;

	if (!isdigit((unsigned char)**text))
		return -EINVAL;
	while (isdigit((unsigned char)**text)) {
		value = value * 10 + (*(*text)++ - '0');
		if (value >= WF_CPUS_MAX)
			return -EINVAL;
	}
	return value;
}

int wf_cpus_parse(const char *list, struct wf_cpus *cpus_out)
{
	cpus_out->count = 0;
	for (;;) {
		int first = parse_cpu(&list);
		int last = first;

		if (first < 0)
			return -EINVAL;
		if (*list == '-') {
			list++;
			last = parse_cpu(&list);
			if (last < first)
				return -EINVAL;
		}
		for (int cpu = first; cpu <= last; cpu++) {
			if (cpus_out->count == WF_CPUS_MAX)
				return -EINVAL;
			cpus_out->cpu[cpus_out->count++] = cpu;
		}
		if (*list == '\0')
			return 0;
		if (*list++ != ',')
			return -EINVAL;
	}
}

/* One cgroup's quota in whole CPUs; INT_MAX: it sets none. */
typedef int (*quota_fn)(const char *cgroup);

/* Version 2: "max 100000" or "50000 100000" in cpu.max. */
static int quota_version_2(const char *cgroup)
{
	char path[PATH_MAX], quota[32];
	long period;
	FILE *file;
	int cpus = INT_MAX;

	if (snprintf(path, sizeof path, "/sys/fs/cgroup%s/cpu.max", cgroup) >= (int)sizeof path)
		return INT_MAX;
	file = open_file(path);
	if (!file)
		return INT_MAX;
	if (fscanf(file, "%31s %ld", quota, &period) == 2 && strcmp(quota, "max") != 0
		&& period > 0)
		cpus = (int)(atol(quota) / period);
	fclose(file);
	return cpus;
}

/* Version 1: two files; the controller is mounted as cpu, or linked so. */
static int quota_version_1(const char *cgroup)
{
	char quota_path[PATH_MAX], period_path[PATH_MAX];
	long quota, period;

	if (snprintf(quota_path, sizeof quota_path, "/sys/fs/cgroup/cpu%s/cpu.cfs_quota_us", cgroup)
			>= (int)sizeof quota_path
		|| snprintf(period_path, sizeof period_path,
			   "/sys/fs/cgroup/cpu%s/cpu.cfs_period_us", cgroup)
			>= (int)sizeof period_path)
		return INT_MAX;
	quota = read_number(quota_path, -1);
	period = read_number(period_path, 0);
	return quota > 0 && period > 0 ? (int)(quota / period) : INT_MAX;
}

/* The least of a cgroup and all above it: each may set one. Cuts `path` up. */
static int quota_upwards(char *path, quota_fn quota)
{
	int least = INT_MAX;

	for (;;) {
		int own = quota(path);
		char *slash = strrchr(path, '/');

		if (own < least)
			least = own;
		if (!slash || slash[1] == '\0')
			return least;
		slash[slash == path ? 1 : 0] = '\0';
	}
}

/* Whether a list such as "cpu,cpuacct" names the cpu controller. */
static bool names_cpu(char *controllers)
{
	char *rest = controllers, *name;

	while ((name = strsep(&rest, ",")))
		if (strcmp(name, "cpu") == 0)
			return true;
	return false;
}

/* A line of /proc/self/cgroup, "number:controllers:path". */
static int quota_of_line(char *line)
{
	char *controllers = strchr(line, ':');
	char *path = controllers ? strchr(controllers + 1, ':') : NULL;

	if (!path)
		return INT_MAX;
	*path++ = '\0';
	path[strcspn(path, "\n")] = '\0';
	if (controllers[1] == '\0')
		return quota_upwards(path, quota_version_2);
	return names_cpu(controllers + 1) ? quota_upwards(path, quota_version_1) : INT_MAX;
}

int wf_cpus_quota(void)
{
	FILE *file = open_file("/proc/self/cgroup");
	char line[PATH_MAX];
	int least = INT_MAX;

	if (!file)
		return -1;
	while (fgets(line, sizeof line, file)) {
		int quota = quota_of_line(line);

		if (quota < least)
			least = quota;
	}
	fclose(file);
	return least == INT_MAX ? -1 : least;
}
