/* SPDX-License-Identifier: MIT */
/* Result handles, as streams and the submitting functions use them. */
#ifndef BRI_RESULT_H
#define BRI_RESULT_H

#include "pool/pool.h"

struct brood_result {
    brood_pool *pool;          /* held */
    struct bri_job_view view;  /* of its job, from the making */
    uint64_t index;            /* in the ring */
    uint32_t lost_looks;       /* in a row that found nobody who could finish it */
    int64_t next_look;         /* not before */
    struct bri_bell_shm *bell; /* of its job, once it has been asked for a descriptor */
    int descriptor;            /* epoll, -1: nobody has asked */
    int supervisor_fd;         /* pidfd of the supervisor that the descriptor watches */
    bri_name watched;          /* which supervisor that is */
};

/* Checks the handle: 0, -EINVAL, -EPERM. */
int bri_result_check(const brood_result *result);

/* The descriptor, where there is one: shows the present supervisor's end; closed. */
void bri_result_refresh_descriptor(brood_result *result);
void bri_result_close_descriptor(brood_result *result);

/* A handle that holds the pool and has no job yet; fini: it has none any more. */
void bri_result_init(brood_result *result, brood_pool *pool);
void bri_result_fini(brood_result *result);

/* For waits, after each slice: can the result still come?  See pool.h, damage. */
void bri_result_look_for_loss(brood_result *result, int64_t now);

/* Waits, copies count × result_bytes to results unless NULL; 0 or the first item's failure, as brood_pool_map. */
int bri_result_get(brood_result *result, void *results, int64_t deadline);

/* One look, no system call: every item has its outcome. */
int bri_result_is_ready(brood_result *result);

/* The same of one item. */
int bri_result_has_item(brood_result *result, uint64_t item);

/* One item of a stream, the index-th: a job of its own, also while the pool is closing; see pool.h. */
int bri_pool_submit_flight(brood_pool *pool, brood_function *function, const brood_message *item,
                           uint64_t index, const brood_imap_options *options, brood_result **ret_result);

/* 0; -EINVAL, naming options->retries. */
int bri_check_retries(uint32_t retries);

#endif
