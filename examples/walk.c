/* SPDX-License-Identifier: MIT */
/*
 * The walk is depth first with a stack of its own.  `path` always holds the path of the innermost open folder
 * and perhaps a name behind it; a level remembers where its names begin in it.
 */
#include "walk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct level {
    DIR *folder;
    size_t name_at; /* where its names begin in `path` */
};

struct walk {
    char *const *arguments; /* the rest of them */
    walk_trouble *trouble;
    char *path;
    size_t path_capacity;
    struct level *levels;
    size_t depth;
    size_t levels_capacity;
};

struct walk *walk_create(char *const *arguments, walk_trouble *trouble)
{
    struct walk *walk = calloc(1, sizeof *walk);

    if (walk != NULL) {
        walk->arguments = arguments;
        walk->trouble = trouble;
    }
    return walk;
}

void walk_destroy(struct walk *walk)
{
    if (walk == NULL)
        return;
    while (walk->depth > 0)
        closedir(walk->levels[--walk->depth].folder);
    free(walk->levels);
    free(walk->path);
    free(walk);
}

/* path = the first `at` bytes of it + name.  Leaves room for one slash more.  0, or -1 without memory. */
static int set_name(struct walk *walk, size_t at, const char *name)
{
    const size_t length = strlen(name);
    const size_t needed = at + length + 2;

    if (needed > walk->path_capacity) {
        char *path = realloc(walk->path, 2 * needed);
        if (path == NULL)
            return -1;
        walk->path = path;
        walk->path_capacity = 2 * needed;
    }
    memcpy(walk->path + at, name, length + 1);
    return 0;
}

static int reserve_level(struct walk *walk)
{
    if (walk->depth < walk->levels_capacity)
        return 0;
    const size_t capacity = 2 * walk->levels_capacity + 16;
    struct level *levels = realloc(walk->levels, capacity * sizeof *levels);
    if (levels == NULL)
        return -1;
    walk->levels = levels;
    walk->levels_capacity = capacity;
    return 0;
}

/* Goes into the folder that `path` names. */
static enum walk_found enter(struct walk *walk, int parent, const char *name, int flags)
{
    if (reserve_level(walk) < 0)
        return WALK_NO_MEMORY;
    const int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | flags);
    DIR *folder = fd < 0 ? NULL : fdopendir(fd);
    if (folder == NULL) {
        walk->trouble(walk->path, strerror(errno));
        if (fd >= 0)
            close(fd);
        return WALK_NO_FILE;
    }
    size_t length = strlen(walk->path);
    if (walk->path[length - 1] != '/')
        walk->path[length++] = '/';
    walk->path[length] = '\0';
    walk->levels[walk->depth++] = (struct level){folder, length};
    return WALK_NO_FILE;
}

static enum walk_found next_argument(struct walk *walk)
{
    struct stat status;

    if (*walk->arguments == NULL)
        return WALK_END;
    if (set_name(walk, 0, *walk->arguments++) < 0)
        return WALK_NO_MEMORY;
    if (stat(walk->path, &status) < 0) {
        walk->trouble(walk->path, strerror(errno));
        return WALK_NO_FILE;
    }
    if (S_ISDIR(status.st_mode))
        return enter(walk, AT_FDCWD, walk->path, 0);
    if (S_ISREG(status.st_mode))
        return WALK_FILE;
    walk->trouble(walk->path, "Neither a regular file nor a folder");
    return WALK_NO_FILE;
}

/* DT_REG, DT_DIR or another kind, also on file systems that leave it open in the folder. */
static int kind_of(struct walk *walk, int parent, const struct dirent *entry)
{
    struct stat status;

    if (entry->d_type != DT_UNKNOWN)
        return entry->d_type;
    if (fstatat(parent, entry->d_name, &status, AT_SYMLINK_NOFOLLOW) < 0) {
        walk->trouble(walk->path, strerror(errno));
        return DT_UNKNOWN;
    }
    return IFTODT(status.st_mode);
}

static enum walk_found leave(struct walk *walk, int err)
{
    struct level *level = &walk->levels[--walk->depth];

    if (err != 0) {
        walk->path[level->name_at] = '\0';
        walk->trouble(walk->path, strerror(err));
    }
    closedir(level->folder);
    return WALK_NO_FILE;
}

static enum walk_found next_name(struct walk *walk)
{
    struct level *level = &walk->levels[walk->depth - 1];
    const int parent = dirfd(level->folder);

    errno = 0;
    const struct dirent *entry = readdir(level->folder);
    if (entry == NULL)
        return leave(walk, errno);
    if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
        return WALK_NO_FILE;
    if (set_name(walk, level->name_at, entry->d_name) < 0)
        return WALK_NO_MEMORY;
    switch (kind_of(walk, parent, entry)) {
    case DT_REG:
        return WALK_FILE;
    case DT_DIR:
        return enter(walk, parent, entry->d_name, O_NOFOLLOW);
    default:
        return WALK_NO_FILE;
    }
}

enum walk_found walk_step(struct walk *walk, const char **ret_path)
{
    const enum walk_found found = walk->depth > 0 ? next_name(walk) : next_argument(walk);

    if (found == WALK_FILE)
        *ret_path = walk->path;
    return found;
}
