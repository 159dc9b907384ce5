/*
 * bench_scope.c: scope_tree: fork and join by scopes. A binary tree of processes to depth n, each
 * opening a scope, spawning two children in it and closing it; the same with leaves, which are half
 * of all, that are tasks; and all tasks, each of which has the memory for its two children (their
 * scopes are in it) allocated and freed by malloc().
 *
 * The result of each is the number of its leaves, so a tree that lost a branch is an error.
 */
#include "perf/bench_runtime.h"

#include <errno.h>
#include <stdlib.h>

enum kind { FIBERS, TASK_LEAVES, TASKS };

struct tree {
	const struct bench_args *args;
	enum kind kind;
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

/* A task and what it keeps from poll to poll. */
struct node {
	unsigned depth;
	bool open;
	int error;
	uint64_t leaves;
	struct node *children; /* two */
	struct weft_scope scope;
};

static int node_poll(void *state);

static int node_open(struct node *node)
{
	struct node *children = malloc(2 * sizeof(*children));
	int error;

	if (!children)
		return -ENOMEM;
	error = weft_scope_open(&node->scope, NULL);
	if (error < 0) {
		free(children);
		return error;
	}
	node->children = children;
	node->open = true;
	for (int i = 0; i < 2 && node->error == 0; i++) {
		children[i].depth = node->depth - 1;
		children[i].open = false;
		children[i].error = 0;
		children[i].leaves = 0;
		node->error =
			weft_scope_task(&node->scope, node_poll, &children[i], NULL, NULL);
	}
	return 0;
}

static int node_poll(void *state)
{
	struct node *node = state;
	int error;

	if (node->depth == 0) {
		node->leaves = 1;
		return 0;
	}
	if (!node->open) {
		error = node_open(node);
		if (error < 0)
			return error;
	}
	error = weft_scope_close(&node->scope);
	if (error == WEFT_PENDING)
		return WEFT_PENDING;
	node->leaves = node->children[0].leaves + node->children[1].leaves;
	free(node->children);
	return node->error < 0 ? node->error : error;
}

static int tree_of_tasks(struct branch *root)
{
	struct node node = {.depth = root->depth};
	struct weft_scope scope;
	int error = weft_scope_open(&scope, NULL), closed;

	if (error < 0)
		return error;
	error = weft_scope_task(&scope, node_poll, &node, NULL, NULL);
	closed = weft_scope_close(&scope);
	root->leaves = node.leaves;
	return error < 0 ? error : closed;
}

static int tree_main(void *arg)
{
	struct tree *tree = arg;
	struct branch root = {
		.depth = (unsigned)tree->args->n, .task_leaves = tree->kind == TASK_LEAVES};
	uint64_t cpu_ns = bench_cpu_ns(), start_ns = bench_now_ns();
	int error = tree->kind == TASKS ? tree_of_tasks(&root) : branch_body(&root);

	tree->total_ns = bench_now_ns() - start_ns;
	tree->cpu_ns = bench_cpu_ns() - cpu_ns;
	BENCH_CHECK(error < 0 || root.leaves == 1ull << tree->args->n);
	return error;
}

static int tree_measure(const struct bench_args *args, struct bench_result *result,
	const char *variant, enum kind kind)
{
	struct bench_row *row =
		bench_row_add(result, variant, kind == TASKS ? "task" : "fiber");
	struct tree tree = {.args = args, .kind = kind};
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
	error = tree_measure(args, result, "fibers", FIBERS);
	if (error == 0)
		error = tree_measure(args, result, "leaves are tasks", TASK_LEAVES);
	return error < 0 ? error : tree_measure(args, result, "tasks", TASKS);
}

const struct bench_workload bench_scope_tree = {
	.name = "scope_tree",
	.help = "a tree to depth n, each process closing a scope with two children; per process",
	.workers_default = 2,
	.n_default = 20,
	.idle_modes = BENCH_IDLE_BIT(BENCH_IDLE_SPIN) | BENCH_IDLE_BIT(BENCH_IDLE_PARK),
	.run = tree_run,
};
