/* SPDX-License-Identifier: MIT */
/*
 * The assertion ladder.  BROOD_CHECK=0: none.  1: cheap facts at the edges.  2: facts inside protocols.  3: walks of whole
 * structures (…_is_valid) after each operation.
 *
 * Fault points name the moments of a protocol.  They are compiled out unless BROOD_FAULT_POINTS is set; then a test may
 * install bri_fault_hook and kill, fail or stop at a name.
 */
#ifndef BRI_CHECK_H
#define BRI_CHECK_H

#ifndef BROOD_CHECK
#define BROOD_CHECK 0
#endif

#define bri_check(level, condition) \
    ((void)((level) > BROOD_CHECK || (condition) || (bri_check_failed(#condition, __FILE__, __LINE__), 0)))

_Noreturn void bri_check_failed(const char *condition, const char *file, int line);

#if defined(BROOD_FAULT_POINTS) && BROOD_FAULT_POINTS
extern void (*bri_fault_hook)(const char *point);
#define bri_fault(point) ((void)(bri_fault_hook != 0 && (bri_fault_hook(point), 0)))
#else
#define bri_fault(point) ((void)0)
#endif

#endif
