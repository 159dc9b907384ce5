/*
 * bench_scope.c: scope_tree: fork and join by scopes. A binary tree of processes to depth n, each
 * opening a scope, spawning two children in it and closing it; and the same with leaves, which are
 * half of all, that are tasks. (Its owner waits for a scope, so it has a stack.)
 *
 * The result of each is the number of its leaves, so a tree that lost a branch is an error.
 */
#include "perf/bench_runtime.h"

#include <errno.h>

struct tree {
	const struct bench_args *args;
	bool task_leaves;
	uint64_t total_ns;
	uint64_t cpu_ns;
};

/* What a child is told and what it tells, in its parent's frame. */
struct branch {
	unsigned depth;
	bool task_leaves;
	uint64_t leaves;
};

static int leaf_body(void *arg)
{
	struct branch *branch = arg;

	branch->leaves = 1;
	return 0;
}

static int branch_body(void *arg);

static int branch_spawn(struct weft_scope *scope, struct branch *branch)
{
	if (branch->depth > 0)
		return weft_scope_spawn(scope, branch_body, branch, NULL);
	if (branch->task_leaves)
		return weft_scope_task(scope, leaf_body, branch, NULL, NULL);
	return weft_scope_spawn(scope, leaf_body, branch, NULL);
}

static int branch_body(void *arg)
{
	struct branch *branch = arg;
	struct branch left = {.depth = branch->depth - 1, .task_leaves = branch->task_leaves};
	struct branch right = left;
	struct weft_scope scope;
	int error = weft_scope_open(&scope, NULL), closed;

	if (error < 0)
		return error;
	error = branch_spawn(&scope, &left);
	if (error == 0)
		error = branch_spawn(&scope, &right);
	closed = weft_scope_close(&scope);
	branch->leaves = left.leaves + right.leaves;
	return error < 0 ? error : closed;
}

static int tree_main(void *arg)
{
	struct tree *tree = arg;
	struct branch root = {
		.depth = (unsigned)tree->args->n, .task_leaves = tree->task_leaves};
	uint64_t cpu_ns = bench_cpu_ns(), start_ns = bench_now_ns();
	int error = branch_body(&root);

	tree->total_ns = bench_now_ns() - start_ns;
	tree->cpu_ns = bench_cpu_ns() - cpu_ns;
	BENCH_CHECK(error < 0 || root.leaves == 1ull << tree->args->n);
	return error;
}

static int tree_measure(const struct bench_args *args, struct bench_result *result,
	const char *variant, bool task_leaves)
{
	struct bench_row *row = bench_row_add(result, variant, "fiber");
	struct tree tree = {.args = args, .task_leaves = task_leaves};
	double processes = (double)((2ull << args->n) - 1);
	int error = bench_runtime_run(args, tree_main, &tree);

	bench_row_set(row, BENCH_NS_PER_OP, (double)tree.total_ns / processes);
	bench_row_set(row, BENCH_CPU_NS, (double)tree.cpu_ns / processes);
	return error;
}

static int tree_run(const struct bench_args *args, struct bench_result *result)
{
	int error;

	if (args->n > 30)
		return -EINVAL;
	error = tree_measure(args, result, "fibers", false);
	return error < 0 ? error : tree_measure(args, result, "leaves are tasks", true);
}

const struct bench_workload bench_scope_tree = {
	.name = "scope_tree",
	.help = "a tree to depth n, each process closing a scope with two children; per process",
	.workers_default = 2,
	.n_default = 20,
	.idle_modes = BENCH_IDLE_BIT(BENCH_IDLE_SPIN) | BENCH_IDLE_BIT(BENCH_IDLE_PARK),
	.run = tree_run,
};
