/* SPDX-License-Identifier: MIT */
#include "plat/modules.h"

#include <errno.h>
#include <link.h>
#include <stdlib.h>

static int add_range(struct bri_modules *modules, uintptr_t begin, uintptr_t end)
{
    struct bri_module_range *grown = realloc(modules->ranges, (modules->count + 1) * sizeof *grown);

    if (grown == NULL)
        return -ENOMEM;
    grown[modules->count++] = (struct bri_module_range){begin, end};
    modules->ranges = grown;
    return 0;
}

static int add_module(struct dl_phdr_info *info, size_t size, void *argument)
{
    int error = 0;

    (void)size;
    for (int i = 0; i < info->dlpi_phnum && error == 0; i++) {
        const ElfW(Phdr) *part = &info->dlpi_phdr[i];
        uintptr_t begin = info->dlpi_addr + part->p_vaddr;
        if (part->p_type == PT_LOAD && part->p_flags & PF_X)
            error = add_range(argument, begin, begin + part->p_memsz);
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

int bri_modules_hold(const struct bri_modules *modules, uintptr_t address)
{
    for (size_t i = 0; i < modules->count; i++)
        if (address >= modules->ranges[i].begin && address < modules->ranges[i].end)
            return 1;
    return 0;
}
