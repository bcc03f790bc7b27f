#include "api/recipe.h"

#include "api/options.h"
#include "base/memory.h"
#include "base/strbuf.h"
#include "formats/yaml.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct recipe_value {
    recipe_level level;
    bool is_omitted; /* not written */
    char **items;    /* one for every type but LIST */
    size_t n, capacity;
} recipe_value;

struct graft_recipe {
    graft_verb verb;
    recipe_value *values; /* [option_count()], by the option's index */
    strbuf joined;        /* what graft_recipe_get lent last */
};

static size_t index_of(const graft_option *option) {
    return (size_t)(option - graft_option_at(0));
}

static void value_clear(recipe_value *v) {
    for (size_t i = 0; i < v->n; i++)
        free(v->items[i]);
    free(v->items);
    *v = (recipe_value){0};
}

static graft_status value_add(recipe_value *v, const char *text, size_t n, graft_error *err) {
    if (!mem_reserve(&v->items, &v->capacity, v->n + 1, sizeof *v->items) ||
        !(v->items[v->n] = mem_text(text, n)))
        return error_memory(err, n, "a recipe");
    v->n++;
    return GRAFT_OK;
}

graft_status graft_recipe_create(graft_recipe **out, graft_verb verb, graft_error *err) {
    *out = NULL;
    graft_recipe *r = mem_array(1, sizeof *r);
    if (r)
        r->values = mem_array(option_count(), sizeof *r->values);
    if (!r || !r->values) {
        free(r);
        return error_memory(err, sizeof *r, "a recipe");
    }
    r->verb = verb;
    *out = r;
    return GRAFT_OK;
}

void graft_recipe_destroy(graft_recipe **recipe) {
    if (!*recipe)
        return;
    for (size_t i = 0; i < option_count(); i++)
        value_clear(&(*recipe)->values[i]);
    free((*recipe)->values);
    strbuf_free(&(*recipe)->joined);
    free(*recipe);
    *recipe = NULL;
}

graft_status recipe_copy(graft_recipe **out, const graft_recipe *from, graft_error *err) {
    graft_status status = graft_recipe_create(out, from->verb, err);
    for (size_t i = 0; i < option_count() && status == GRAFT_OK; i++) {
        recipe_value *to = &(*out)->values[i];
        to->level = from->values[i].level;
        to->is_omitted = from->values[i].is_omitted;
        for (size_t j = 0; j < from->values[i].n && status == GRAFT_OK; j++)
            status = value_add(to, from->values[i].items[j], strlen(from->values[i].items[j]), err);
    }
    if (status != GRAFT_OK)
        graft_recipe_destroy(out);
    return status;
}

/* ---- Checking a text against its option ---- */

static bool parse_number(double *out, const char *text) {
    char *end;
    errno = 0;
    *out = strtod(text, &end);
    return end != text && !*end && isfinite(*out);
}

static bool parse_integer(int64_t *out, const char *text) {
    char *end;
    errno = 0;
    *out = strtoll(text, &end, 10);
    if (end != text && !*end && !errno)
        return true;
    double number; /* 1e4, 2048.0 */
    if (!parse_number(&number, text) || number != floor(number) || fabs(number) > 0x1p53)
        return false;
    *out = (int64_t)number;
    return true;
}

static bool parse_size(int64_t *out, const char *text) {
    char *end;
    double number = strtod(text, &end);
    if (end == text || !(number >= 0))
        return false;
    static const char suffixes[] = "KMGT";
    double unit = 1;
    if (*end) {
        char upper = *end >= 'a' ? (char)(*end - 32) : *end;
        const char *found = strchr(suffixes, upper);
        if (!found || !*found)
            return false;
        for (const char *s = suffixes; s <= found; s++)
            unit *= 1024;
        end++;
        if (*end == 'i')
            end++;
        if (*end == 'B' || *end == 'b')
            end++;
    }
    if (*end || number * unit > 0x1p62)
        return false;
    *out = (int64_t)(number * unit);
    return true;
}

static bool parse_flag(bool *out, const char *text) {
    static const char *const yes[] = {"true", "yes", "on", "1", "True"}, *const no[] = {
                                                                             "false", "no", "off",
                                                                             "0", "False"};
    for (int i = 0; i < 5; i++) {
        if (!strcmp(text, yes[i]) || !strcmp(text, no[i])) {
            *out = !strcmp(text, yes[i]);
            return true;
        }
    }
    return false;
}

static bool is_choice(const char *choices, const char *text) {
    size_t length = strlen(text);
    while (*choices) {
        size_t n = strcspn(choices, "|");
        if (n == length && !strncmp(choices, text, n))
            return true;
        choices += n + (choices[n] == '|');
    }
    return false;
}

static graft_status check_range(const graft_option *o, double value, const char *text,
                                graft_error *err) {
    if (o->low == o->high || (value >= o->low && value <= o->high))
        return GRAFT_OK;
    return error_set(err, GRAFT_E_USAGE, "%s: %s is outside %.15g to %.15g", o->name, text, o->low,
                     o->high);
}

static graft_status check_value(const graft_option *o, const char *text, graft_error *err) {
    int64_t integer;
    double number;
    bool flag;
    switch (o->type) {
    case GRAFT_OPTION_FLAG:
        return parse_flag(&flag, text)
                   ? GRAFT_OK
                   : error_set(err, GRAFT_E_USAGE, "%s: expected true or false, found \"%s\"",
                               o->name, text);
    case GRAFT_OPTION_INTEGER:
        if (!parse_integer(&integer, text))
            return error_set(err, GRAFT_E_USAGE, "%s: expected a whole number, found \"%s\"",
                             o->name, text);
        return check_range(o, (double)integer, text, err);
    case GRAFT_OPTION_NUMBER:
        if (!parse_number(&number, text))
            return error_set(err, GRAFT_E_USAGE, "%s: expected a number, found \"%s\"", o->name,
                             text);
        return check_range(o, number, text, err);
    case GRAFT_OPTION_SIZE:
        return parse_size(&integer, text)
                   ? GRAFT_OK
                   : error_set(err, GRAFT_E_USAGE,
                               "%s: expected a size such as 8G or 512M, found \"%s\"", o->name,
                               text);
    case GRAFT_OPTION_CHOICE:
        return is_choice(o->choices, text)
                   ? GRAFT_OK
                   : error_set(err, GRAFT_E_USAGE, "%s: expected one of %s, found \"%s\"", o->name,
                               o->choices, text);
    default:
        return GRAFT_OK;
    }
}

/* ---- Setting ---- */

static graft_status unknown_option(const char *name, graft_error *err) {
    const char *nearest = option_nearest(name);
    return error_set(err, GRAFT_E_USAGE, "unknown option \"%s\"%s%s%s", name,
                     nearest ? "; did you mean \"" : "", nearest ? nearest : "",
                     nearest ? "\"?" : "");
}

/* A list's text is cut at commas, except where it is a regular expression: these lists take one as
 * a whole. */
static graft_status add_list(recipe_value *v, const graft_option *o, const char *text,
                             graft_error *err) {
    bool is_regex = strpbrk(text, "()[]{}*+^$\\?") != NULL && strstr(o->name, "modules");
    bool is_whole = is_regex || !strcmp(o->name, "stop") || !strcmp(o->name, "data") ||
                    !strcmp(o->name, "eval_data") || !strcmp(o->name, "adapter_set");
    while (*text) {
        size_t n = is_whole ? strlen(text) : strcspn(text, ",");
        if (n) {
            graft_status status = value_add(v, text, n, err);
            if (status != GRAFT_OK)
                return status;
        }
        text += n + (text[n] == ',');
    }
    return GRAFT_OK;
}

/* Recipes of Transformers say true and false where Graft also knows "auto". */
static const char *choice_of_flag(const graft_option *o, const char *text) {
    bool flag;
    if (o->type != GRAFT_OPTION_CHOICE || is_choice(o->choices, text) ||
        !is_choice(o->choices, "on") || !parse_flag(&flag, text))
        return text;
    return flag ? "on" : "off";
}

static graft_status set_value(graft_recipe *r, const graft_option *o, const char *given,
                              recipe_level level, bool appends, graft_error *err) {
    recipe_value *v = &r->values[index_of(o)];
    const char *text = choice_of_flag(o, given);
    graft_status status = check_value(o, text, err);
    if (status != GRAFT_OK)
        return status;
    if (!appends || o->type != GRAFT_OPTION_LIST)
        value_clear(v);
    v->level = level;
    if (o->type == GRAFT_OPTION_LIST)
        return add_list(v, o, text, err);
    return value_add(v, text, strlen(text), err);
}

graft_status graft_recipe_set(graft_recipe *r, const char *name, const char *value,
                              graft_error *err) {
    const graft_option *o = graft_option_find(name);
    if (!o)
        return unknown_option(name, err);
    recipe_value *v = &r->values[index_of(o)];
    if (!value) {
        value_clear(v);
        return GRAFT_OK;
    }
    return set_value(r, o, value, LEVEL_FLAG, v->level == LEVEL_FLAG, err);
}

static graft_status read_scalar(void *context, const char *key, int index, const char *value,
                                int line, graft_error *err) {
    graft_recipe *r = context;
    const graft_option *o = graft_option_find(key);
    graft_status status = GRAFT_OK;
    if (!o)
        status = unknown_option(key, err);
    else if (index >= 0 && o->type != GRAFT_OPTION_LIST)
        status = error_set(err, GRAFT_E_INPUT, "%s: expected one value, found a list", key);
    else if (value && r->values[index_of(o)].level != LEVEL_FLAG)
        status = set_value(r, o, value, LEVEL_FILE, index > 0, err);
    if (status == GRAFT_OK)
        return GRAFT_OK;
    error_prefix(err, "line %d", line);
    if (err)
        err->code = GRAFT_E_INPUT;
    return GRAFT_E_INPUT;
}

graft_status graft_recipe_read(graft_recipe *r, const char *path, graft_error *err) {
    return yaml_read_file(path, read_scalar, r, err);
}

/* ---- Reading back ---- */

static const recipe_value *value_of(const graft_recipe *r, const char *name,
                                    const graft_option **o) {
    *o = graft_option_find(name);
    assert(*o);
    return &r->values[index_of(*o)];
}

const char *recipe_text(const graft_recipe *r, const char *name) {
    const graft_option *o;
    const recipe_value *v = value_of(r, name, &o);
    return v->n ? v->items[0] : v->level == LEVEL_DEFAULT ? o->fallback : NULL;
}

recipe_level recipe_level_of(const graft_recipe *r, const char *name) {
    const graft_option *o;
    return value_of(r, name, &o)->level;
}

bool recipe_has(const graft_recipe *r, const char *name) {
    return recipe_level_of(r, name) != LEVEL_DEFAULT;
}

void recipe_omit(graft_recipe *r, const char *name) {
    r->values[index_of(graft_option_find(name))].is_omitted = true;
}

bool recipe_flag(const graft_recipe *r, const char *name) {
    bool value = false;
    const char *text = recipe_text(r, name);
    return text && parse_flag(&value, text) && value;
}

int64_t recipe_integer(const graft_recipe *r, const char *name) {
    int64_t value = 0;
    const char *text = recipe_text(r, name);
    assert(text);
    parse_integer(&value, text);
    return value;
}

double recipe_number(const graft_recipe *r, const char *name) {
    double value = 0;
    const char *text = recipe_text(r, name);
    assert(text);
    parse_number(&value, text);
    return value;
}

int64_t recipe_size(const graft_recipe *r, const char *name) {
    int64_t value = 0;
    const char *text = recipe_text(r, name);
    if (text)
        parse_size(&value, text);
    return value;
}

size_t recipe_list_count(const graft_recipe *r, const char *name) {
    const graft_option *o;
    return value_of(r, name, &o)->n;
}

const char *recipe_list_item(const graft_recipe *r, const char *name, size_t i) {
    const graft_option *o;
    const recipe_value *v = value_of(r, name, &o);
    assert(i < v->n);
    return v->items[i];
}

graft_verb recipe_verb(const graft_recipe *r) {
    return r->verb;
}

const char *graft_recipe_get(const graft_recipe *r, const char *name) {
    const graft_option *o = graft_option_find(name);
    if (!o)
        return NULL;
    const recipe_value *v = &r->values[index_of(o)];
    if (o->type != GRAFT_OPTION_LIST || v->n < 2)
        return recipe_text(r, name);
    strbuf *joined = &((graft_recipe *)r)->joined; /* lent text: not part of the recipe's value */
    strbuf_clear(joined);
    for (size_t i = 0; i < v->n; i++)
        strbuf_printf(joined, "%s%s", i ? "," : "", v->items[i]);
    return strbuf_text(joined);
}

/* Numbers and flags plain, as a person would write them; what could be read as something else
 * quoted. */
static void write_item(strbuf *text, const graft_option *o, const char *item) {
    bool flag;
    if (o->type == GRAFT_OPTION_FLAG && parse_flag(&flag, item))
        strbuf_add_text(text, flag ? "true" : "false");
    else if (o->type == GRAFT_OPTION_INTEGER || o->type == GRAFT_OPTION_NUMBER)
        strbuf_add_text(text, item);
    else
        yaml_write_scalar(text, item);
}

static void write_option(strbuf *text, const graft_option *o, const recipe_value *v) {
    bool is_list = o->type == GRAFT_OPTION_LIST;
    strbuf_printf(text, "%s: %s", o->name, is_list ? "[" : "");
    if (!v->n && !is_list)
        write_item(text, o, o->fallback);
    for (size_t i = 0; i < v->n; i++) {
        strbuf_add_text(text, i ? ", " : "");
        write_item(text, o, v->items[i]);
    }
    strbuf_add_text(text, is_list ? "]\n" : "\n");
}

graft_status graft_recipe_write(const graft_recipe *r, const graft_sink *sink, graft_error *err) {
    strbuf text = {0};
    for (size_t i = 0; i < option_count(); i++) {
        const graft_option *o = graft_option_at(i);
        if ((o->verbs & r->verb) && !r->values[i].is_omitted && (r->values[i].n || o->fallback))
            write_option(&text, o, &r->values[i]);
    }
    if (!text.failed)
        sink->write(sink->context, strbuf_text(&text), text.length);
    graft_status status = text.failed ? error_memory(err, text.length, "a recipe") : GRAFT_OK;
    strbuf_free(&text);
    return status;
}
