/* Looking options up, for recipes. */
#ifndef GRAFT_API_OPTIONS_H
#define GRAFT_API_OPTIONS_H

#include <stddef.h>

size_t option_count(void);
/* The known name closest to a mistyped one; NULL when none is close. */
const char *option_nearest(const char *name);

#endif
