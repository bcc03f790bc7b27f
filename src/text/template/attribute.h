/* Attributes named by a text, as filters take them: "function.name", "items.0". */
#ifndef GRAFT_TEXT_TEMPLATE_ATTRIBUTE_H
#define GRAFT_TEXT_TEMPLATE_ATTRIBUTE_H

#include "text/template/value.h"

value attribute_path(vm *, value of, value path);
/* Undefined steps give `fallback` (unless it was not given or is none). */
value attribute_path_or(vm *, value of, value path, value fallback);

#endif
