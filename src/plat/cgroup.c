/* SPDX-License-Identifier: MIT */
#include "plat/cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LINE_BYTES = 8192, NUMBERS_BYTES = 128 };

/* Version 1 writes "no limit" as the greatest multiple of the page size below 2^63, whatever that size is. */
#define UNLIMITED_BYTES (UINT64_C(1) << 62)

/* A file taken line by line through a fixed buffer: mountinfo has no bound and we must not allocate. */
struct lines {
    int fd;
    bool overlong; /* dropping the rest of a line that did not fit; cgroup mounts are never that long */
    size_t start;
    size_t end;
    char text[LINE_BYTES];
};

/* The fields of a mountinfo line we use; they point into that line. */
struct mount {
    char *root; /* the group that is seen at the mount point */
    char *point;
    char *type;
    char *options;
};

/* The mount through which we look at our group, and what follows its mount point. */
struct place {
    size_t depth;     /* length of the mount's root; SIZE_MAX when our group is not below it */
    const char *rest; /* "" or "/…"; NULL while there is no mount at all */
    char point[PATH_MAX];
};

/* A directory on the way from our group to the top; dir never gets shorter than top. */
struct group {
    bool v2;
    size_t top;
    char dir[PATH_MAX];
};

struct quota {
    uint64_t quota_us;
    uint64_t period_us;
};

struct memory_files {
    const char *limit;
    const char *usage;
    const char *cache_key; /* in memory.stat, counting descendants too as usage does */
};

/* ---- files ---- */

/* Files come and go with groups, controllers and permissions: "none" is an answer.  Running out is not. */
static int soften(int err)
{
    return err == EMFILE || err == ENFILE || err == ENOMEM ? -err : 0;
}

static int open_file(const char *dir, const char *name, int *ret_fd)
{
    char path[PATH_MAX];
    int length = snprintf(path, sizeof path, "%s/%s", dir, name);

    if (length < 0 || (size_t)length >= sizeof path)
        return -ENAMETOOLONG;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return soften(errno);
    *ret_fd = fd;
    return 1;
}

static ssize_t read_some(int fd, char *bytes, size_t size)
{
    ssize_t got;

    do
        got = read(fd, bytes, size);
    while (got < 0 && errno == EINTR);
    return got < 0 ? soften(errno) : got;
}

int bri_kernel_file_read(const char *dir, const char *name, size_t size, char *ret_text)
{
    int fd = -1;
    int err = open_file(dir, name, &fd);

    if (err <= 0)
        return err;
    /* One read: the kernel makes the text of such a file at once. */
    ssize_t got = read_some(fd, ret_text, size - 1);
    close(fd);
    if (got <= 0 || (size_t)got == size - 1)
        return got < 0 ? (int)got : 0;
    ret_text[got] = '\0';
    return 1;
}

static int open_lines(struct lines *lines, const char *dir, const char *name)
{
    lines->overlong = false;
    lines->fd = -1;
    lines->start = lines->end = 0;
    return open_file(dir, name, &lines->fd);
}

static char *cut_line(struct lines *lines)
{
    char *line = lines->text + lines->start;
    char *newline = memchr(line, '\n', lines->end - lines->start);

    if (newline == NULL)
        return NULL;
    *newline = '\0';
    lines->start = (size_t)(newline + 1 - lines->text);
    return line;
}

static ssize_t refill(struct lines *lines)
{
    size_t kept = lines->end - lines->start;

    if (kept == LINE_BYTES - 1) {
        lines->overlong = true;
        kept = 0;
    }
    memmove(lines->text, lines->text + lines->start, kept);
    ssize_t got = read_some(lines->fd, lines->text + kept, LINE_BYTES - 1 - kept);
    lines->start = 0;
    lines->end = kept + (got > 0 ? (size_t)got : 0);
    return got;
}

/* What stands after the last newline. */
static char *cut_rest(struct lines *lines)
{
    char *line = lines->text + lines->start;

    if (lines->overlong || lines->start == lines->end)
        return NULL;
    lines->text[lines->end] = '\0';
    lines->start = lines->end;
    return line;
}

static int next_line(struct lines *lines, char **ret_line)
{
    for (;;) {
        char *line = cut_line(lines);
        if (line == NULL) {
            ssize_t got = refill(lines);
            if (got > 0)
                continue;
            line = got == 0 ? cut_rest(lines) : NULL;
            if (line == NULL)
                return (int)got;
        } else if (lines->overlong) {
            lines->overlong = false;
            continue;
        }
        *ret_line = line;
        return 1;
    }
}

/* Returns what follows the number; NULL, and the number untouched, when there is none ("max", "-1"). */
static const char *parse_number(const char *text, uint64_t *ret_number)
{
    char *end;

    if (*text < '0' || *text > '9')
        return NULL;
    *ret_number = strtoull(text, &end, 10);
    return end;
}

static int read_number(const char *dir, const char *name, uint64_t *ret_number)
{
    char text[NUMBERS_BYTES];
    int err = bri_kernel_file_read(dir, name, sizeof text, text);

    if (err <= 0)
        return err;
    return parse_number(text, ret_number) != NULL;
}

/* The number after `key` in a file of "key number" lines. */
static int read_keyed(const char *dir, const char *name, const char *key, uint64_t *ret_number)
{
    struct lines lines;
    char *line;
    size_t length = strlen(key);
    int found = open_lines(&lines, dir, name);

    if (found <= 0)
        return found;
    while ((found = next_line(&lines, &line)) > 0) {
        bool matches = strncmp(line, key, length) == 0 && line[length] == ' ';
        if (matches && parse_number(line + length + 1, ret_number) != NULL)
            break;
    }
    close(lines.fd);
    return found;
}

/* ---- where our group is ---- */

static bool has_item(const char *list, const char *item)
{
    size_t length = strlen(item);

    while (list != NULL) {
        if (strncmp(list, item, length) == 0 && (list[length] == ',' || list[length] == '\0'))
            return true;
        list = strchr(list, ',');
        list = list == NULL ? NULL : list + 1;
    }
    return false;
}

/* The path in a line "id:controllers:path" of /proc/self/cgroup, NULL when it is of another hierarchy.
 * Here and below, a NULL controller stands for version 2. */
static const char *match_group(char *line, const char *controller)
{
    const char *id = strsep(&line, ":");
    const char *controllers = strsep(&line, ":");

    if (line == NULL || line[0] != '/')
        return NULL;
    bool matches = controller == NULL ? strcmp(id, "0") == 0 && controllers[0] == '\0'
                                      : has_item(controllers, controller);
    return matches ? line : NULL;
}

static int find_path(const char *root, const char *controller, char ret_path[PATH_MAX])
{
    struct lines lines;
    char *line;
    int found = open_lines(&lines, root, "proc/self/cgroup");

    if (found <= 0)
        return found;
    while ((found = next_line(&lines, &line)) > 0) {
        const char *path = match_group(line, controller);
        if (path != NULL && strlen(path) < PATH_MAX) {
            memcpy(ret_path, path, strlen(path) + 1);
            break;
        }
    }
    close(lines.fd);
    return found;
}

static bool is_octal(const char *at)
{
    return at[0] >= '0' && at[0] <= '3' && at[1] >= '0' && at[1] <= '7' && at[2] >= '0' && at[2] <= '7';
}

/* mountinfo writes blanks, newlines and backslashes inside a path as \ooo. */
static void unescape(char *text)
{
    char *to = text;

    for (const char *from = text; *from != '\0'; to++) {
        if (from[0] == '\\' && is_octal(from + 1)) {
            *to = (char)((from[1] - '0') << 6 | (from[2] - '0') << 3 | (from[3] - '0'));
            from += 4;
        } else {
            *to = *from++;
        }
    }
    *to = '\0';
}

/* "id parent device root point options [tag…] - type source options" */
static bool split_mount(char *line, struct mount *ret_mount)
{
    char *fields[6];
    const char *field;

    for (int i = 0; i < 6; i++)
        fields[i] = strsep(&line, " ");
    do
        field = strsep(&line, " ");
    while (field != NULL && strcmp(field, "-") != 0);
    char *type = strsep(&line, " ");
    strsep(&line, " ");
    if (line == NULL)
        return false;
    unescape(fields[3]);
    unescape(fields[4]);
    *ret_mount = (struct mount){.root = fields[3], .point = fields[4], .type = type, .options = line};
    return true;
}

static bool shows(const struct mount *mount, const char *controller)
{
    if (controller == NULL)
        return strcmp(mount->type, "cgroup2") == 0;
    return strcmp(mount->type, "cgroup") == 0 && has_item(mount->options, controller);
}

/* The part of `path` below the mount's root, NULL when it is not below.  Seen from inside a cgroup namespace
 * either can start with "/..": then what is left may lead up and out of the mount. */
static const char *part_below(const char *path, const char *mount_root)
{
    size_t length = strcmp(mount_root, "/") == 0 ? 0 : strlen(mount_root);

    if (strncmp(path, mount_root, length) != 0)
        return NULL;
    const char *rest = path + length;
    if (strcmp(rest, "/") == 0 || rest[0] == '\0')
        return "";
    if (rest[0] != '/' || strcmp(rest, "/..") == 0 || strncmp(rest, "/../", 4) == 0)
        return NULL;
    return rest;
}

/* The mount with the highest root shows the most ancestors.  Of equals the later: it may cover the other. */
static void consider(const struct mount *mount, const char *path, struct place *best)
{
    const char *rest = part_below(path, mount->root);
    size_t depth = rest == NULL ? SIZE_MAX : strlen(mount->root);
    size_t length = strlen(mount->point);

    if (depth > best->depth || length >= sizeof best->point)
        return;
    best->depth = depth;
    best->rest = rest == NULL ? "" : rest;
    memcpy(best->point, mount->point, length + 1);
}

static int find_place(const char *root, const char *controller, const char *path, struct place *ret_place)
{
    struct lines lines;
    struct mount mount;
    char *line;
    int found = open_lines(&lines, root, "proc/self/mountinfo");

    if (found <= 0)
        return found;
    ret_place->depth = SIZE_MAX;
    ret_place->rest = NULL;
    while ((found = next_line(&lines, &line)) > 0) {
        if (split_mount(line, &mount) && shows(&mount, controller))
            consider(&mount, path, ret_place);
    }
    close(lines.fd);
    return found < 0 ? found : ret_place->rest != NULL;
}

static int find_group(const char *root, const char *controller, struct group *ret_group)
{
    char path[PATH_MAX];
    struct place place;
    int found = find_path(root, controller, path);

    if (found > 0)
        found = find_place(root, controller, path, &place);
    if (found <= 0)
        return found;
    int length = snprintf(ret_group->dir, sizeof ret_group->dir, "%s%s%s", root, place.point, place.rest);
    if (length < 0 || (size_t)length >= sizeof ret_group->dir)
        return -ENAMETOOLONG;
    ret_group->top = strlen(root) + strlen(place.point);
    ret_group->v2 = controller == NULL;
    return 1;
}

/* Goes to the parent; false at the top. */
static bool climb(struct group *group)
{
    char *slash = strrchr(group->dir + group->top, '/');

    if (slash == NULL)
        return false;
    *slash = '\0';
    return true;
}

/* ---- CPU time ---- */

static int read_quota_v1(const char *dir, struct quota *ret_quota)
{
    int err = read_number(dir, "cpu.cfs_quota_us", &ret_quota->quota_us);

    return err <= 0 ? err : read_number(dir, "cpu.cfs_period_us", &ret_quota->period_us);
}

static int read_quota_v2(const char *dir, struct quota *ret_quota)
{
    char text[NUMBERS_BYTES];
    int err = bri_kernel_file_read(dir, "cpu.max", sizeof text, text);

    if (err <= 0)
        return err;
    const char *rest = parse_number(text, &ret_quota->quota_us);
    return rest != NULL && *rest == ' ' && parse_number(rest + 1, &ret_quota->period_us) != NULL;
}

/* A period of zero stands for "no quota", which every quota is tighter than. */
static bool is_tighter(const struct quota *a, const struct quota *b)
{
    if (a->quota_us == 0 || a->period_us == 0 || b->period_us == 0)
        return a->quota_us != 0 && a->period_us != 0;
    return (double)a->quota_us * (double)b->period_us < (double)b->quota_us * (double)a->period_us;
}

static int tighten_quota(const char *root, const char *controller, struct quota *tightest)
{
    struct group group;
    int err = find_group(root, controller, &group);

    if (err <= 0)
        return err;
    do {
        struct quota quota;
        err = group.v2 ? read_quota_v2(group.dir, &quota) : read_quota_v1(group.dir, &quota);
        if (err > 0 && is_tighter(&quota, tightest))
            *tightest = quota;
    } while (err >= 0 && climb(&group));
    return err;
}

int bri_cgroup_cpu_quota(const char *root, uint64_t *ret_quota_us, uint64_t *ret_period_us)
{
    struct quota tightest = {0, 0};
    int err = tighten_quota(root, "cpu", &tightest);

    if (err >= 0)
        err = tighten_quota(root, NULL, &tightest);
    if (err < 0)
        return err;
    if (tightest.period_us == 0)
        return 0;
    *ret_quota_us = tightest.quota_us;
    *ret_period_us = tightest.period_us;
    return 1;
}

/* ---- memory ---- */

static const struct memory_files files_v1 = {
    .limit = "memory.limit_in_bytes", .usage = "memory.usage_in_bytes", .cache_key = "total_inactive_file"};
static const struct memory_files files_v2 = {
    .limit = "memory.max", .usage = "memory.current", .cache_key = "inactive_file"};

static int read_headroom(const struct group *group, uint64_t *ret_bytes)
{
    const struct memory_files *files = group->v2 ? &files_v2 : &files_v1;
    uint64_t limit;
    uint64_t usage = 0;
    uint64_t cache = 0;
    int err = read_number(group->dir, files->limit, &limit);

    if (err <= 0 || limit >= UNLIMITED_BYTES)
        return err < 0 ? err : 0;
    err = read_number(group->dir, files->usage, &usage);
    if (err >= 0)
        err = read_keyed(group->dir, "memory.stat", files->cache_key, &cache);
    if (err < 0)
        return err;
    uint64_t held = cache < usage ? usage - cache : 0;
    *ret_bytes = held < limit ? limit - held : 0;
    return 1;
}

static int tighten_headroom(const char *root, const char *controller, uint64_t *least)
{
    struct group group;
    int err = find_group(root, controller, &group);

    if (err <= 0)
        return err;
    do {
        uint64_t bytes;
        err = read_headroom(&group, &bytes);
        if (err > 0 && bytes < *least)
            *least = bytes;
    } while (err >= 0 && climb(&group));
    return err;
}

int bri_cgroup_memory_headroom(const char *root, uint64_t *ret_bytes)
{
    uint64_t least = UINT64_MAX;
    int err = tighten_headroom(root, "memory", &least);

    if (err >= 0)
        err = tighten_headroom(root, NULL, &least);
    if (err < 0)
        return err;
    if (least == UINT64_MAX)
        return 0;
    *ret_bytes = least;
    return 1;
}

/* Version 2 counts a kill in the nearest ancestor with the memory controller; below it there is no file. */
static int read_oom_kills(const char *root, const char *controller, uint64_t *ret_kills)
{
    const char *file = controller == NULL ? "memory.events" : "memory.oom_control";
    struct group group;
    int found = find_group(root, controller, &group);

    if (found <= 0)
        return found;
    do
        found = read_keyed(group.dir, file, "oom_kill", ret_kills);
    while (found == 0 && climb(&group));
    return found;
}

uint64_t bri_cgroup_oom_kills(const char *root)
{
    uint64_t kills = 0;

    if (read_oom_kills(root, "memory", &kills) == 0)
        read_oom_kills(root, NULL, &kills);
    return kills;
}
