// SPDX-License-Identifier: Apache-2.0
/*
 * What the static libelf of elfutils 0.192 calls and does not contain (https://sourceware.org/bugzilla/show_bug.cgi?id=32293,
 * repaired in 0.193): trees that remember the chunks of a file that were read one by one. libbpf never reads a file so,
 * which is why the trees stay empty and only their beginning and end are called. A tree begins with its root.
 */
#define _GNU_SOURCE
#include <search.h>
#include <stdlib.h>

typedef int (*compare_fn)(const void *, const void *);

struct tree {
	void *root;
};

void eu_search_tree_init(struct tree *tree);
void eu_search_tree_fini(struct tree *tree, void (*free_node)(void *));
void *eu_tsearch(const void *key, struct tree *tree, compare_fn compare);
void *eu_tdelete(const void *key, struct tree *tree, compare_fn compare);

void eu_search_tree_init(struct tree *tree)
{
	tree->root = NULL;
}

void eu_search_tree_fini(struct tree *tree, void (*free_node)(void *))
{
	tdestroy(tree->root, free_node);
	tree->root = NULL;
}

void *eu_tsearch(const void *key, struct tree *tree, compare_fn compare)
{
	return tsearch(key, &tree->root, compare);
}

void *eu_tdelete(const void *key, struct tree *tree, compare_fn compare)
{
	return tdelete(key, &tree->root, compare);
}
