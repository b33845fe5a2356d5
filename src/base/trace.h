/* SPDX-License-Identifier: MIT */
/* BROOD_TRACE=1: a line per event on stderr, each written by one write(2), with the time since boot: all processes' lines stand in the order of
 * time by themselves, and a killed process has printed all that it did. */
#ifndef BRI_TRACE_H
#define BRI_TRACE_H

int bri_trace_is_on(void);
void bri_trace_write(const char *format, ...) __attribute__((format(printf, 1, 2)));

#define bri_trace(...) ((void)(bri_trace_is_on() && (bri_trace_write(__VA_ARGS__), 0)))

#endif
