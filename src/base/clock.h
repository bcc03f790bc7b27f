/* Time. Durations come from a clock that never jumps; the wall clock is only for what people read.
 */
#ifndef GRAFT_BASE_CLOCK_H
#define GRAFT_BASE_CLOCK_H

/* Seconds since an arbitrary moment; only differences mean something. */
double clock_seconds(void);

enum { CLOCK_TEXT_BYTES = 32 };
/* The wall time as RFC 3339, in UTC: "2026-01-31T23:59:59Z". */
void clock_text(char out[CLOCK_TEXT_BYTES]);

#endif
