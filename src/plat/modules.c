/* SPDX-License-Identifier: MIT */
#include "plat/modules.h"

#include <errno.h>
#include <link.h>
#include <stdlib.h>
#include <string.h>

#define HASH_START  UINT64_C(0xcbf29ce484222325) /* FNV-1a */
#define HASH_FACTOR UINT64_C(0x100000001b3)

enum { EDGE_BYTES = 8192 };

/* Of a module's memory as it was loaded: what lies between its objects, too, where AddressSanitizer would not let anybody read. */
__attribute__((no_sanitize("address"))) static uint64_t hash(uint64_t hashed, const void *memory,
                                                             size_t bytes)
{
    const unsigned char *byte = memory;

    for (size_t i = 0; i < bytes; i++)
        hashed = (hashed ^ byte[i]) * HASH_FACTOR;
    return hashed;
}

/* Both ends of it and its length: where it begins are the names and places of all that the module has, and a large module has hundreds of
 * megabytes, which a pool would read each time that it is made. */
static uint64_t hash_edges(uint64_t hashed, const char *memory, size_t bytes)
{
    size_t head = bytes < EDGE_BYTES ? bytes : EDGE_BYTES;
    size_t tail = bytes - head < EDGE_BYTES ? bytes - head : EDGE_BYTES;

    hashed = hash(hashed, &bytes, sizeof bytes);
    hashed = hash(hashed, memory, head);
    return hash(hashed, memory + bytes - tail, tail);
}

static const void *contents_of(const struct dl_phdr_info *info, const ElfW(Phdr) * part)
{
    return (const void *)(info->dlpi_addr + part->p_vaddr); /* NOLINT(performance-no-int-to-ptr) */
}

/* What its file gave it and the program cannot change. */
static int is_constant(const ElfW(Phdr) * part)
{
    return part->p_type == PT_LOAD && (part->p_flags & (PF_R | PF_W)) == PF_R;
}

/* Notes that are not loaded cannot be read. */
static int are_loaded_notes(const struct dl_phdr_info *info, const ElfW(Phdr) * notes)
{
    for (int i = 0; i < info->dlpi_phnum && notes->p_type == PT_NOTE; i++) {
        const ElfW(Phdr) *part = &info->dlpi_phdr[i];
        if (part->p_type == PT_LOAD && part->p_flags & PF_R && notes->p_vaddr >= part->p_vaddr &&
            notes->p_vaddr + notes->p_filesz <= part->p_vaddr + part->p_filesz)
            return 1;
    }
    return 0;
}

/* Name and contents of each note are padded to the alignment: elf(5). */
static int has_build_id(const char *notes, size_t bytes, size_t alignment)
{
    ElfW(Nhdr) note;

    for (size_t at = 0; at + sizeof note <= bytes;) {
        memcpy(&note, notes + at, sizeof note);
        size_t name = at + sizeof note, contents = name + ((note.n_namesz + alignment - 1) & -alignment);
        if (note.n_type == NT_GNU_BUILD_ID && note.n_namesz == sizeof "GNU" && name + sizeof "GNU" <= bytes &&
            memcmp(notes + name, "GNU", sizeof "GNU") == 0)
            return 1;
        at = contents + ((note.n_descsz + alignment - 1) & -alignment);
    }
    return 0;
}

/* A module without a build ID, as some linkers make them, may differ from another in its contents only. */
static uint64_t hash_constants(const struct dl_phdr_info *info, uint64_t hashed)
{
    for (int i = 0; i < info->dlpi_phnum; i++)
        if (is_constant(&info->dlpi_phdr[i]))
            hashed = hash_edges(hashed, contents_of(info, &info->dlpi_phdr[i]), info->dlpi_phdr[i].p_filesz);
    return hashed;
}

static uint64_t identity_of(const struct dl_phdr_info *info)
{
    uint64_t hashed = hash(HASH_START, info->dlpi_name, strlen(info->dlpi_name));
    int is_identified = 0;

    hashed = hash(hashed, &info->dlpi_addr, sizeof info->dlpi_addr);
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &info->dlpi_phdr[i];
        if (!are_loaded_notes(info, part))
            continue;
        hashed = hash(hashed, contents_of(info, part), part->p_filesz);
        is_identified |= has_build_id(contents_of(info, part), part->p_filesz, part->p_align == 8 ? 8 : 4);
    }
    return is_identified ? hashed : hash_constants(info, hashed);
}

static int is_code(const ElfW(Phdr) * part)
{
    return part->p_type == PT_LOAD && part->p_flags & PF_X;
}

static int add_range(struct bri_modules *modules, uintptr_t begin, uintptr_t end,
                     const struct dl_phdr_info *info)
{
    struct bri_module_range *grown = realloc(modules->ranges, (modules->count + 1) * sizeof *grown);

    if (grown == NULL)
        return -ENOMEM;
    modules->ranges = grown;
    grown += modules->count++;
    grown->begin = begin;
    grown->end = end;
    grown->identity = identity_of(info);
    grown->stays = info->dlpi_name[0] == 0; /* dl_iterate_phdr(3): the program */
    bri_store_relaxed(&grown->unloads, (uint64_t)info->dlpi_subs);
    return 0;
}

static int add_module(struct dl_phdr_info *info, size_t size, void *argument)
{
    int error = 0;

    (void)size;
    for (int i = 0; i < info->dlpi_phnum && error == 0; i++) {
        const ElfW(Phdr) *part = &info->dlpi_phdr[i];
        uintptr_t begin = info->dlpi_addr + part->p_vaddr;
        if (is_code(part))
            error = add_range(argument, begin, begin + part->p_memsz, info);
    }
    return error;
}

int bri_modules_snapshot(struct bri_modules *ret_modules)
{
    struct bri_modules modules = {0, NULL};
    int error = dl_iterate_phdr(add_module, &modules);

    if (error < 0) {
        free(modules.ranges);
        return error;
    }
    *ret_modules = modules;
    return 0;
}

/* Ends the walk at the first module: the count is the same in all. */
static int read_unloads(struct dl_phdr_info *info, size_t size, void *ret_unloads)
{
    (void)size;
    *(uint64_t *)ret_unloads = info->dlpi_subs;
    return 1;
}

struct look {
    uintptr_t address;
    uint64_t identity, unloads; /* of the module that is there */
};

static int look_into(struct dl_phdr_info *info, size_t size, void *argument)
{
    struct look *look = argument;

    (void)size;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &info->dlpi_phdr[i];
        if (!is_code(part) || look->address - info->dlpi_addr - part->p_vaddr >= part->p_memsz)
            continue;
        look->identity = identity_of(info);
        look->unloads = info->dlpi_subs;
        return 1;
    }
    return 0;
}

/* The loader's lock is held in both walks, so that what they say of one moment is true of it. */
static int is_still_there(struct bri_module_range *range, uintptr_t address)
{
    struct look look = {.address = address};
    uint64_t unloads = 0;

    if (range->stays)
        return 1;
    dl_iterate_phdr(read_unloads, &unloads);
    if (unloads == bri_load_relaxed(&range->unloads))
        return 1;
    if (dl_iterate_phdr(look_into, &look) == 0 || look.identity != range->identity)
        return 0;
    bri_store_relaxed(&range->unloads, look.unloads);
    return 1;
}

int bri_modules_hold(const struct bri_modules *modules, uintptr_t address)
{
    for (size_t i = 0; i < modules->count; i++)
        if (address >= modules->ranges[i].begin && address < modules->ranges[i].end)
            return is_still_there(&modules->ranges[i], address);
    return 0;
}
