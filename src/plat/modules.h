/* SPDX-License-Identifier: MIT */
/*
 * The executable parts of the loaded modules: where a function may lie.
 *
 * A module may be unloaded, and another one, or a newer one of its name, be loaded to the same addresses.  The loader counts unloads
 * (dlpi_subs of dl_iterate_phdr(3)): as long as its count stands still, what was seen at an address is still there.  So a check costs a
 * look at the count, and only after an unload a comparison of the module that is there now with the one that was.
 */
#ifndef BRI_MODULES_H
#define BRI_MODULES_H

#include <stddef.h>
#include <stdint.h>

#include "base/atomic.h"

struct bri_module_range {
    uintptr_t begin, end;
    uint64_t identity; /* of its module: name, place and contents */
    int stays;         /* it is the program's */
    _Atomic uint64_t
        unloads; /* the loader's count when that module was last seen here; any thread that checks */
};

struct bri_modules {
    size_t count;
    struct bri_module_range *ranges; /* malloc'd; free() it */
};

/* What is loaded now (dl_iterate_phdr(3)).  -ENOMEM. */
int bri_modules_snapshot(struct bri_modules *ret_modules);

/* Does the address lie in an executable part of one of them, and is that module there now? */
int bri_modules_hold(const struct bri_modules *modules, uintptr_t address);

#endif
