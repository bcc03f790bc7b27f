/* Recipes: options as texts, checked when they are set, read with their types. */
#ifndef GRAFT_API_RECIPE_H
#define GRAFT_API_RECIPE_H

#include "base/status.h"

/* Values in force. The text forms give NULL when an option has no value; numbers assert that it has
 * one. */
const char *recipe_text(const graft_recipe *, const char *name);
/* Who set a value: a higher level wins. */
typedef enum recipe_level { LEVEL_DEFAULT, LEVEL_FILE, LEVEL_FLAG } recipe_level;
recipe_level recipe_level_of(const graft_recipe *, const char *name);
bool recipe_has(const graft_recipe *, const char *name); /* set by flag or file, not by default */
bool recipe_flag(const graft_recipe *, const char *name);
int64_t recipe_integer(const graft_recipe *, const char *name);
double recipe_number(const graft_recipe *, const char *name);
int64_t recipe_size(const graft_recipe *, const char *name); /* 0 when not set */
size_t recipe_list_count(const graft_recipe *, const char *name);
const char *recipe_list_item(const graft_recipe *, const char *name, size_t i);
/* A recipe of its own with the same values. */
graft_status recipe_copy(graft_recipe **, const graft_recipe *, graft_error *);
/* graft_recipe_write leaves the option out. */
void recipe_omit(graft_recipe *, const char *name);
graft_verb recipe_verb(const graft_recipe *);

#endif
