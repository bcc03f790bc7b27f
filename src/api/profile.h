/* --profile: where the time went. */
#ifndef GRAFT_API_PROFILE_H
#define GRAFT_API_PROFILE_H

#include "api/open.h"
#include "base/strbuf.h"

/* Puts a meter around the backend when the recipe asks for a profile. */
graft_status profile_begin(opened *, graft_error *);
/* What was counted since it began or was taken, of a call of so many seconds; nothing without a
 * meter. Measures this machine's peaks. */
void profile_take(graft_profile *, const opened *, double seconds);

/* "profile" of a result's document, and a table behind its text; nothing without ops. */
void profile_set(json_t **object, const graft_profile *);
void profile_text(strbuf *, const graft_profile *);

#endif
