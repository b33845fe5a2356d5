/* SPDX-License-Identifier: MIT */
/* What every layer may ask for when it learns of a death.  Done by heap/recover.c, which knows the kinds of objects; declared here, because
 * those who wait in lower layers are among those who learn of deaths. */
#ifndef BRI_UNDERTAKER_H
#define BRI_UNDERTAKER_H

#include "arena/roster.h"

/* Passes on everything that participants whose slot is DEAD held, then publishes the obituary.  Idempotent, may itself be killed at any
 * instruction (whoever learns of that death goes on), and may be called by any number at once.  Not with a mutex held: what is mourned may need it. */
void bri_undertake(void);

/* Asks the kernel about all participants, buries those that have ended and undertakes if there is anybody to.  Workers and
 * processes whose parent lives are left to it: it knows how they ended.  Not with a mutex held. */
void bri_bury_the_ended(void);

/* Asks the kernel about `name`; if it has ended, buries it and undertakes.  True if it had ended.  May be called with a mutex held: then
 * only the heap's own locks are freed at once (nothing is waited for below them), and the rest is done when the last mutex is unlocked. */
int bri_report_if_ended(bri_name name);

#endif
