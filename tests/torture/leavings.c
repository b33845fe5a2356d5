/* SPDX-License-Identifier: MIT */
/* What a round leaves behind: blocks, descriptors, processes; and what those that hang are doing.  See torture.h. */
#include <dirent.h>
#include <sys/wait.h>

#include "arena/undertaker.h"
#include "torture.h"

enum { LEFT_MOST = 10, STACKS_MOST = 8 };

/* --- the arena --- */

void bury_all(void)
{
    for (uint32_t slot = 0; slot < bri_load_acquire(&bri_arena_current->header->slots_high); slot++) {
        enum bri_slot_state state;
        bri_name name = bri_roster_name_at(slot, &state);
        if (state == BRI_SLOT_LIVE || state == BRI_SLOT_CLAIMED)
            bri_report_if_ended(name);
    }
    bri_undertake();
}

static brood_arena_stats stats_now(void)
{
    brood_arena_stats stats = {.size = sizeof stats};

    expect_0(brood_arena_stats_get(&stats), "brood_arena_stats_get");
    return stats;
}

static void print_block(struct bri_block_shm *block, uint64_t tag, void *argument)
{
    static const char *const kinds[BRI_KINDS] = {
        "none",    "lock",    "rlock",   "semaphore", "condition", "event", "barrier", "queue", "user",
        "segment", "message", "process", "pool",      "job",       "data",  "failure", "reply"};

    if (++*(uint32_t *)argument <= LEFT_MOST)
        printf("#   a %s of %llu bytes at %llu, owner %x, aux %llx %llx %llx\n", kinds[bri_tag_kind(tag)],
               (unsigned long long)bri_load_relaxed(&block->bytes),
               (unsigned long long)bri_offset_of(bri_payload_of(block)), bri_tag_owner(tag),
               (unsigned long long)bri_load_relaxed(&block->aux[0]),
               (unsigned long long)bri_load_relaxed(&block->aux[1]),
               (unsigned long long)bri_load_relaxed(&block->aux[2]));
}

static void free_user_block(struct bri_block_shm *block, uint64_t tag, void *argument)
{
    if (bri_tag_kind(tag) == BRI_KIND_USER && brood_free(bri_payload_of(block)) == 0)
        ++*(uint32_t *)argument;
}

uint32_t free_forgotten_blocks(void)
{
    uint32_t forgotten = 0;

    bri_heap_walk(free_user_block, &forgotten);
    return forgotten;
}

/* --- descriptors --- */

/* "." and ".." and the directory's own are not counted. */
static int count_descriptors(void)
{
    DIR *directory = opendir("/proc/self/fd");
    int count = -3;

    while (directory != NULL && readdir(directory) != NULL)
        count++;
    if (directory != NULL)
        closedir(directory);
    return count;
}

struct stock take_stock(void)
{
    return (struct stock){.blocks = stats_now().used_blocks, .descriptors = count_descriptors()};
}

static int is_clean(const struct stock *before)
{
    brood_arena_stats stats = stats_now();

    return stats.participants == 1 && stats.used_blocks == before->blocks &&
           count_session(getsid(0), NULL) == 0;
}

void check_leavings(const struct stock *before)
{
    int64_t limit = brood_after_ms(GONE_WITHIN_MS);
    uint32_t printed = 0;

    for (bury_all(); !is_clean(before) && bri_now_ns() < limit; bury_all())
        pause_us(1000);
    brood_arena_stats stats = stats_now();
    expect(LEAVINGS, stats.participants == 1, "%u participants are left", stats.participants - 1);
    expect(LEAVINGS, count_descriptors() == before->descriptors, "%d descriptors are left",
           count_descriptors() - before->descriptors);
    expect(LEAVINGS, waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD, "a child is left");
    expect(LEAVINGS, bri_heap_is_valid(), "the heap is not whole");
    if (stats.used_blocks == before->blocks)
        return;
    complain(LEAVINGS, "%lld blocks are left", (long long)(stats.used_blocks - before->blocks));
    bri_heap_walk(print_block, &printed);
}

/* --- processes --- */

struct about {
    char state;
    int parent, session;
    char name[32];
};

/* /proc/PID/stat: pid (name) state parent group session … */
static int read_about(pid_t pid, struct about *ret_about)
{
    char path[40], stat[512] = "";

    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return 0;
    size_t got = fread(stat, 1, sizeof stat - 1, file);
    fclose(file);
    char *name = strchr(stat, '('), *end = strrchr(stat, ')');
    if (got == 0 || name == NULL || end == NULL || end[1] == '\0')
        return 0;
    *end = '\0';
    snprintf(ret_about->name, sizeof ret_about->name, "%s", name + 1);
    ret_about->state = end[2];
    char *numbers = end + 3;
    ret_about->parent = (int)strtol(numbers, &numbers, 10);
    strtol(numbers, &numbers, 10);
    ret_about->session = (int)strtol(numbers, NULL, 10);
    return 1;
}

int count_session(pid_t of, void (*visit)(pid_t pid))
{
    DIR *processes = opendir("/proc");
    struct about about;
    int count = 0;

    for (struct dirent *entry; processes != NULL && (entry = readdir(processes)) != NULL;) {
        pid_t pid = (pid_t)atoi(entry->d_name);
        if (pid <= 0 || pid == getpid() || !read_about(pid, &about) || about.session != of ||
            about.state == 'Z' || about.state == 'X')
            continue;
        count++;
        if (visit != NULL)
            visit(pid);
    }
    if (processes != NULL)
        closedir(processes);
    return count;
}

int is_session_empty(pid_t of, int64_t deadline)
{
    while (count_session(of, NULL) > 0) {
        if (bri_now_ns() >= deadline)
            return 0;
        pause_us(2000);
    }
    return 1;
}

/* --- at a hang --- */

static void print_file(pid_t pid, const char *name)
{
    char path[60], text[160] = "";

    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, name);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return;
    if (fgets(text, sizeof text, file) != NULL)
        printf("#     %s: %.*s\n", name, (int)strcspn(text, "\n"), text);
    fclose(file);
}

static const char *doing_of(pid_t pid)
{
    for (uint32_t i = 0; i < torture.seats_count; i++)
        if (bri_load_relaxed(&notes_of(i)->pid) == pid && bri_load_relaxed(&notes_of(i)->doing) != NULL)
            return bri_load_relaxed(&notes_of(i)->doing);
    return "in no seat";
}

static void print_stack(pid_t pid)
{
    char command[200], line[300];

    snprintf(
        command, sizeof command,
        "timeout 20 gdb -nx -batch -p %d -ex 'thread apply all bt 14' 2>/dev/null | grep -E '^(#|Thread)'",
        (int)pid);
    FILE *stack = popen(command, "re"); /* NOLINT(cert-env33-c): a test's; without gdb it prints nothing */
    while (stack != NULL && fgets(line, sizeof line, stack) != NULL)
        printf("#       %s", line);
    if (stack != NULL)
        pclose(stack);
}

static int stacks_printed;

static void print_state(pid_t pid)
{
    struct about about;

    if (!read_about(pid, &about))
        return;
    printf("#   pid %d (%s), child of %d, state %c, %s\n", (int)pid, about.name, about.parent, about.state,
           doing_of(pid));
    print_file(pid, "wchan");
    print_file(pid, "syscall");
    if (stacks_printed++ < STACKS_MOST)
        print_stack(pid);
}

void print_states(pid_t of)
{
    stacks_printed = 0;
    printf("# the processes of the round:\n");
    count_session(of, print_state);
    fflush(stdout);
}
