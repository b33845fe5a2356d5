/* SPDX-License-Identifier: MIT */
/* Tasks that work, fail, crash, hang, and use more than they may.  See tasks.h. */
#include <fcntl.h>

#include "tasks.h"

enum { EXIT_CODE = 7, MIB = 1 << 20, OOM_MIB = 256 /* more than oom_group.c allows */ };

struct task_books_shm *books;

uint64_t value_of(const struct item *item)
{
    uint64_t state = item->value ^ item->index;

    return next_random(&state) | 1;
}

static struct life_shm *life_of(const struct item *item)
{
    return &books->lives[item->region][item->index];
}

/* --- in the worker --- */

static void spend_time(const struct item *item)
{
    volatile uint64_t sum = 0;

    for (uint64_t i = 0; item->errand == SPIN && i < item->value % 200000; i++)
        sum = sum + i;
    if (item->errand == NAP)
        pause_us((uint32_t)(item->value % 3000));
}

static _Noreturn void hang(void)
{
    for (;;)
        pause_us(50000);
}

/* Touched and kept; how many MiB there were. */
static uint32_t take_memory(uint32_t most_mib)
{
    uint32_t taken = 0;

    for (char *piece; taken < most_mib && (piece = malloc(MIB)) != NULL; taken++)
        memset(piece, 1, MIB);
    return taken;
}

static _Noreturn void burn(void)
{
    for (volatile uint64_t turns = 0;; turns = turns + 1) {
    }
}

/* Ends only with the stack. */
static int dig(volatile char *above)
{
    volatile char here[4096];

    here[0] = *above;
    return here[0] == 0 ? dig(here) + here[0] : 0;
}

static void enter_oom_group(void)
{
    int fd = open(books->oom_group, O_WRONLY | O_CLOEXEC);

    if (fd < 0 || write(fd, "0", 1) != 1)
        hang(); /* its batch finds out */
    close(fd);
}

static enum fault fault_of(uint32_t errand)
{
    switch (errand) {
    case DIE_BY_FAULT:
        return CRASH_FAULT;
    case DIE_BY_ABORT:
        return CRASH_ABORT;
    case DIE_BY_STACK:
        return CRASH_STACK;
    case DIE_BY_EXIT:
        return CRASH_EXIT;
    case DIE_BY_EXIT_AT_ONCE:
        return CRASH_EXIT_AT_ONCE;
    case DIE_BY_MEMORY:
        return LIMIT_MEMORY;
    case DIE_BY_CPU:
        return LIMIT_CPU;
    case DIE_BY_OOM:
        return OOM_KILL;
    default:
        return CRASH_KILL;
    }
}

static _Noreturn void die(const struct item *item)
{
    char top = 0;

    note_fault(fault_of(item->errand));
    switch (item->errand) {
    case DIE_BY_FAULT:
        raise(SIGSEGV);
        break;
    case DIE_BY_MEMORY:
        take_memory(2 * MEMORY_MIB);
        abort();
    case DIE_BY_ABORT:
        abort();
    case DIE_BY_STACK:
        dig(&top);
        break;
    case DIE_BY_EXIT:
        exit(EXIT_CODE);
    case DIE_BY_EXIT_AT_ONCE:
        _exit(EXIT_CODE);
    case DIE_BY_CPU:
        burn();
    case DIE_BY_OOM:
        enter_oom_group();
        take_memory(OOM_MIB);
        break;
    default:
        raise(SIGKILL);
    }
    hang();
}

static int open_files(brood_task *task)
{
    int fds[2 * FILES_MOST], count = 0;

    while (count < 2 * FILES_MOST && (fds[count] = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0)
        count++;
    int error = errno;
    for (int i = 0; i < count; i++)
        close(fds[i]);
    if (count == 2 * FILES_MOST)
        return 0;
    note_fault(LIMIT_FILES);
    return brood_task_fail(task, error, "files");
}

static int take_too_much(brood_task *task)
{
    void *piece = malloc((size_t)2 * MEMORY_MIB * MIB);

    if (piece != NULL) {
        free(piece);
        return 0;
    }
    note_fault(LIMIT_MEMORY);
    return brood_task_fail(task, ENOMEM, "memory");
}

static int fail_if_told(brood_task *task, const struct item *item)
{
    char text[40];

    switch (item->errand) {
    case RETURN_CODE:
        return 5 + (int)(item->index % 3);
    case FAIL:
        snprintf(text, sizeof text, "item %u", item->index);
        return brood_task_fail(task, 100 + (int)(item->index % 3), text);
    case OPEN_FILES:
        return open_files(task);
    case TAKE_MEMORY:
        return take_too_much(task);
    default:
        return 0;
    }
}

static int begin(brood_task *task, const struct item *item)
{
    uint16_t before = bri_add_relaxed(&life_of(item)->begun, (uint16_t)1);

    spend_time(item);
    if (item->errand == HANG_DEAF)
        signal(SIGTERM, SIG_IGN);
    if (item->errand == HANG || item->errand == HANG_DEAF)
        hang();
    if (is_told_to_die(item) || (item->errand == DIE_ONCE && before == 0))
        die(item);
    return fail_if_told(task, item);
}

static void end(const struct item *item)
{
    bri_add_relaxed(&life_of(item)->ended, (uint16_t)1);
}

/* A block whose first word is the value; its address is the result. */
static int allocate(brood_task *task, uint64_t value, uint64_t *ret_address)
{
    void *memory, *dropped;

    if (brood_alloc(64 + value % 5000, &dropped) < 0 || brood_alloc(8 + value % 100000, &memory) < 0)
        return brood_task_fail(task, 1, brood_error_text());
    if (brood_free(dropped) < 0)
        return brood_task_fail(task, 2, brood_error_text());
    memcpy(memory, &value, sizeof value);
    *ret_address = (uint64_t)(uintptr_t)memory;
    return 0;
}

int run_fixed(brood_task *task, const void *memory, void *result)
{
    const struct item *item = memory;
    uint64_t value = value_of(item);
    int code = begin(task, item);

    if (code == 0 && item->errand == ALLOCATE)
        code = allocate(task, value_of(item), &value);
    if (code != 0)
        return code;
    memcpy(result, &value, sizeof value);
    end(item);
    return 0;
}

static void fill_reply(uint8_t *memory, const struct item *item)
{
    for (uint32_t i = 0; i < item->bytes; i++)
        memory[i] = (uint8_t)(value_of(item) + i);
}

int run_bytes(brood_task *task, const void *memory, void *result)
{
    struct item item;
    uint8_t buffer[REPLY_MOST];
    void *place;

    (void)result;
    memcpy(&item, memory, sizeof item);
    int code = begin(task, &item);
    if (code != 0)
        return code;
    fill_reply(buffer, &item);
    if (item.value % 3 == 0 && brood_task_reply(task, buffer, 0) < 0) /* replaced by the next */
        return brood_task_fail(task, 3, brood_error_text());
    if (item.value % 2 == 0) {
        if (brood_task_reply(task, buffer, item.bytes) < 0)
            return brood_task_fail(task, 4, brood_error_text());
    } else {
        if (brood_task_reply_reserve(task, item.bytes, &place) < 0)
            return brood_task_fail(task, 5, brood_error_text());
        memcpy(place, buffer, item.bytes);
    }
    end(&item);
    return 0;
}

/* --- what is expected --- */

int is_told_to_die(const struct item *item)
{
    return item->errand >= DIE_BY_KILL;
}

int is_told_to_fail(const struct item *item)
{
    return item->errand == FAIL || item->errand == RETURN_CODE || item->errand == OPEN_FILES ||
           item->errand == TAKE_MEMORY;
}

static int code_of(const struct item *item)
{
    switch (item->errand) {
    case OPEN_FILES:
        return EMFILE;
    case TAKE_MEMORY:
        return ENOMEM;
    case FAIL:
        return 100 + (int)(item->index % 3);
    default:
        return 5 + (int)(item->index % 3);
    }
}

static void check_error(const struct item *item, const brood_outcome *outcome)
{
    char text[40] = "";

    if (item->errand == FAIL)
        snprintf(text, sizeof text, "item %u", item->index);
    int is_right_text =
        strcmp(outcome->text, text) == 0 || item->errand == OPEN_FILES || item->errand == TAKE_MEMORY;
    expect(OUTCOMES, is_told_to_fail(item) && outcome->code == code_of(item) && is_right_text,
           "item %u of errand %u failed with %d, \"%s\"", item->index, item->errand, outcome->code,
           outcome->text);
}

static int died_as_told(const struct item *item, const brood_outcome *outcome)
{
    switch (item->errand) {
    case DIE_BY_KILL:
    case DIE_BY_OOM:
        return outcome->signal == SIGKILL;
    case DIE_BY_FAULT:
    case DIE_BY_STACK:
        return outcome->signal == SIGSEGV;
    case DIE_BY_ABORT:
        return outcome->signal == SIGABRT;
    case DIE_BY_MEMORY:
        return outcome->signal == SIGABRT && outcome->cause == BROOD_CAUSE_MEMORY;
    case DIE_BY_CPU:
        return outcome->signal == SIGXCPU && outcome->cause == BROOD_CAUSE_CPU;
    case DIE_BY_EXIT:
    case DIE_BY_EXIT_AT_ONCE:
        return outcome->signal == 0 && outcome->exit_code == EXIT_CODE;
    default:
        return 0;
    }
}

static void check_death(const struct item *item, const brood_outcome *outcome, const struct fate *fate)
{
    int is_unknown =
        outcome->signal == 0 && outcome->exit_code == -1 && bri_load_relaxed(&books->supervisors_killed) > 0;

    expect(OUTCOMES, outcome->pid > 0 && outcome->text[0] != '\0', "item %u died, pid %d, \"%s\"",
           item->index, outcome->pid, outcome->text);
    int may_be_stopped =
        fate->may_be_late || fate->may_be_cancelled || fate->may_be_ended; /* then it is not tried again */
    expect(OUTCOMES, outcome->attempts == 1 + (int)fate->retries || may_be_stopped,
           "item %u died after %d of %u attempts", item->index, outcome->attempts, 1 + fate->retries);
    if (died_as_told(item, outcome))
        return;
    bri_add_relaxed(&books->died, 1u);
    expect(DEATHS, outcome->signal == SIGKILL || is_unknown,
           "item %u of errand %u died of signal %d, exit code %d, cause %d", item->index, item->errand,
           outcome->signal, outcome->exit_code, outcome->cause);
}

static void check_has_value(const struct item *item)
{
    uint32_t ended = bri_load_relaxed(&life_of(item)->ended);

    expect(OUTCOMES,
           ended == 1 && !is_told_to_die(item) && !is_told_to_fail(item) && item->errand != HANG &&
               item->errand != HANG_DEAF,
           "item %u of errand %u has a value, ended %u times", item->index, item->errand, ended);
}

static void check_begun(const struct item *item, const struct fate *fate)
{
    uint32_t begun = bri_load_relaxed(&life_of(item)->begun), ended = bri_load_relaxed(&life_of(item)->ended);

    expect(ONCE, begun <= 1 + fate->retries && ended <= begun && ended <= 1,
           "item %u was begun %u times and ended %u times", item->index, begun, ended);
}

void check_outcome(const struct item *item, const brood_outcome *outcome, const struct fate *fate)
{
    uint32_t begun = bri_load_relaxed(&life_of(item)->begun);

    note_checked(TASKS, 1);
    check_begun(item, fate);
    switch (outcome->kind) {
    case BROOD_VALUE:
        check_has_value(item);
        break;
    case BROOD_ERROR:
        check_error(item, outcome);
        break;
    case BROOD_DIED:
        check_death(item, outcome, fate);
        break;
    case BROOD_TIMED_OUT:
        expect(OUTCOMES, fate->may_be_late, "item %u of errand %u ran out of time that it did not have: %s",
               item->index, item->errand, outcome->text);
        break;
    default:
        /* One that waits to be tried again has been begun, and may be cancelled like any that waits. */
        expect(OUTCOMES,
               outcome->kind == BROOD_CANCELLED &&
                   (fate->may_be_ended || (fate->may_be_cancelled && begun <= fate->retries)),
               "item %u of errand %u is of outcome %d, begun %u times", item->index, item->errand,
               outcome->kind, begun);
    }
}

void check_value(const struct item *item, uint64_t value)
{
    uint64_t found = value;

    if (item->errand == ALLOCATE) {
        memcpy(&found, (const void *)(uintptr_t)value, sizeof found); /* NOLINT(performance-no-int-to-ptr) */
        expect_0(brood_free((void *)(uintptr_t)value),
                 "brood_free of a task's block"); /* NOLINT(performance-no-int-to-ptr) */
    }
    expect(VALUES, found == value_of(item), "item %u of errand %u has a wrong value", item->index,
           item->errand);
}

void check_reply(const struct item *item, const brood_message *reply)
{
    const uint8_t *bytes = reply->data;
    int right = reply->bytes == item->bytes;

    for (uint32_t i = 0; right && i < item->bytes; i++)
        right = bytes[i] == (uint8_t)(value_of(item) + i);
    expect(VALUES, right, "item %u has a wrong reply of %zu bytes instead of %u", item->index, reply->bytes,
           item->bytes);
}
