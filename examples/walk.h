/* SPDX-License-Identifier: MIT */
/*
 * The regular files under some files and folders, one at a time: what `find -H ARGUMENT… -type f` prints, in
 * its spelling.
 *
 * Symbolic links given as arguments are followed, those found on the way are not.  Memory and descriptors
 * grow with the depth of the folders (a descriptor for each level), not with the number of files.
 */
#ifndef WALK_H
#define WALK_H

struct walk;

/* Told of each folder or argument that cannot be read.  The walk goes on without it. */
typedef void walk_trouble(const char *path, const char *reason);

/* `arguments` ends with NULL and must outlive the walk.  NULL: no memory. */
struct walk *walk_create(char *const *arguments, walk_trouble *trouble);
void walk_destroy(struct walk *walk);

/* Looks at one more name, so that the caller is never away for long. */
enum walk_found {
    WALK_END,
    WALK_FILE,    /* *ret_path is a regular file's, valid until the next step */
    WALK_NO_FILE, /* it was something else: go on */
    WALK_NO_MEMORY
};
enum walk_found walk_step(struct walk *walk, const char **ret_path);

#endif
