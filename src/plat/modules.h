/* SPDX-License-Identifier: MIT */
/* The executable parts of the loaded modules: where a function may lie. */
#ifndef BRI_MODULES_H
#define BRI_MODULES_H

#include <stddef.h>
#include <stdint.h>

struct bri_module_range {
    uintptr_t begin, end;
};

struct bri_modules {
    size_t count;
    struct bri_module_range *ranges; /* malloc'd; free() it */
};

/* What is loaded now (dl_iterate_phdr(3)).  -ENOMEM. */
int bri_modules_snapshot(struct bri_modules *ret_modules);

/* Does the address lie in an executable part of one of them? */
int bri_modules_hold(const struct bri_modules *modules, uintptr_t address);

#endif
