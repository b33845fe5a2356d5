/* SPDX-License-Identifier: MIT */
/*
 * Modules that are unloaded, and others that get their addresses: workers have what was loaded when the pool was created, and nothing is run
 * there that the caller does not mean.  The modules stand beside this program (tests/plugin); versions of one are loaded from copies of one name.
 */
#include "testing.h"

#include <dlfcn.h>
#include <sys/sendfile.h>

struct loaded {
    void *module;
    brood_function *function, *of_stream; /* the second fails with its version */
};

static char folder[] = "/tmp/brood-reload-XXXXXX", copy[sizeof folder + 16];

/* Of the module beside this program. */
static void find(const char *name, char *path)
{
    ssize_t length = readlink("/proc/self/exe", path, PATH_MAX - 1);

    assert_true(length > 0);
    path[length] = '\0';
    snprintf(strrchr(path, '/') + 1, 32, "%s", name);
}

static struct loaded load_from(const char *path)
{
    struct loaded loaded = {.module = dlopen(path, RTLD_NOW)};

    if (loaded.module == NULL)
        fail_msg("%s: %s", path, dlerror());
    *(void **)&loaded.function = dlsym(loaded.module, "version");
    *(void **)&loaded.of_stream = dlsym(loaded.module, "fail_with_version");
    assert_true(loaded.function != NULL && loaded.of_stream != NULL);
    return loaded;
}

/* A new file, not new contents: what is loaded keeps the old one. */
static void install(const char *path)
{
    unlink(copy);
    int from = open(path, O_RDONLY | O_CLOEXEC), to = open(copy, O_WRONLY | O_CREAT | O_CLOEXEC, 0700);
    ssize_t sent;

    assert_true(from >= 0 && to >= 0);
    while ((sent = sendfile(to, from, NULL, 1 << 20)) > 0) {
    }
    assert_int_equal(sent, 0);
    close(from);
    close(to);
}

/* From the one place: the module goes there first. */
static struct loaded load(const char *name)
{
    char path[PATH_MAX + 32];

    find(name, path);
    install(path);
    return load_from(copy);
}

static int ask(brood_pool *pool, brood_function *function)
{
    int version = -1, error = brood_pool_apply(pool, function, NULL, 0, &version, sizeof version);

    return error < 0 ? error : version;
}

/* Where the second does not get the first's address there is nothing to confuse. */
static struct loaded load_in_place(const char *name, const struct loaded *before)
{
    struct loaded now = load(name);

    if (now.function != before->function) {
        dlclose(now.module);
        skip_because("the second module did not get the address of the first");
    }
    return now;
}

static void assert_versions_are_told_apart(const char *first, const char *second)
{
    struct loaded before = load(first);
    brood_pool *pool = new_pool(1);

    assert_int_equal(ask(pool, before.function), 1);
    dlclose(before.module);
    assert_refused(ask(pool, before.function), EFAULT, "function");
    struct loaded now = load_in_place(second, &before);
    assert_refused(ask(pool, now.function), EFAULT, "function");
    dlclose(now.module);
    now = load_in_place(first, &before);
    for (int i = 0; i < 2; i++)
        assert_int_equal(ask(pool, now.function), 1);
    assert_ok(brood_pool_destroy(pool));
    dlclose(now.module);
}

static void versions_with_a_build_id(void **unused)
{
    (void)unused;
    assert_versions_are_told_apart("plugin_1_sha1.so", "plugin_2_sha1.so");
}

static void versions_without_a_build_id(void **unused)
{
    (void)unused;
    assert_versions_are_told_apart("plugin_1_none.so", "plugin_2_none.so");
}

static void another_ones_end_changes_nothing(void **unused)
{
    char path[PATH_MAX + 32];

    (void)unused;
    find("plugin_2_none.so", path);
    struct loaded stays = load("plugin_1_none.so"), goes = load_from(path);
    brood_pool *pool = new_pool(1);
    assert_int_equal(ask(pool, goes.function), 2);
    dlclose(goes.module);
    for (int i = 0; i < 2; i++)
        assert_int_equal(ask(pool, stays.function), 1);
    assert_refused(ask(pool, goes.function), EFAULT, "function");
    assert_ok(brood_pool_destroy(pool));
    dlclose(stays.module);
}

static void loaded_later_is_refused(void **unused)
{
    brood_pool *pool = new_pool(1);
    struct loaded late = load("plugin_1_sha1.so");

    (void)unused;
    assert_refused(ask(pool, late.function), EFAULT, "function");
    assert_ok(brood_pool_destroy(pool));
    dlclose(late.module);
}

/* --- streams: each item is a job of its own --- */

static int give_item(void *argument, brood_message *ret_item)
{
    (void)argument;
    *ret_item = (brood_message){"", 0};
    return 1;
}

/* Takes one result, which makes room for one item; its version. */
static int take_one(brood_stream *stream)
{
    brood_stream_item item;
    int got = brood_stream_next(stream, &item, brood_after_ms(WITHIN_MS));

    if (got < 0)
        return got;
    assert_int_equal(got, 1);
    assert_int_equal(item.outcome.kind, BROOD_ERROR);
    return item.outcome.code;
}

static void streams_ask_anew(void **unused)
{
    struct loaded before = load("plugin_1_sha1.so");
    brood_pool *pool = new_pool(1);
    brood_stream *stream;

    (void)unused;
    assert_ok(brood_pool_imap(pool, before.of_stream, give_item, NULL, BROOD_IMAP_OPTIONS(.max_items = 2),
                              &stream));
    assert_int_equal(take_one(stream), 1);
    dlclose(before.module);
    assert_int_equal(take_one(stream), 1); /* of what was in flight by then */
    assert_refused(take_one(stream), EFAULT, "function");
    struct loaded now = load_in_place("plugin_2_sha1.so", &before);
    assert_refused(take_one(stream), EFAULT, "function");
    dlclose(now.module);
    now = load_in_place("plugin_1_sha1.so", &before);
    for (int i = 0; i < 3; i++)
        assert_int_equal(take_one(stream), 1);
    assert_ok(brood_stream_destroy(stream));
    assert_ok(brood_pool_destroy(pool));
    dlclose(now.module);
}

static int make_folder(void **state)
{
    if (mkdtemp(folder) == NULL)
        return -1;
    snprintf(copy, sizeof copy, "%s/plugin.so", folder);
    return make_arena(state);
}

static int drop_folder(void **unused)
{
    (void)unused;
    unlink(copy);
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        clean_test(versions_with_a_build_id),
        clean_test(versions_without_a_build_id),
        clean_test(another_ones_end_changes_nothing),
        clean_test(loaded_later_is_refused),
        clean_test(streams_ask_anew),
    };

    prepare_tests();
    return cmocka_run_group_tests_name("reload", tests, make_folder, drop_folder);
}
