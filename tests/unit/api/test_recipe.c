/* Recipes: one table of options behind flags, files and defaults. */
#include "tests/support/support.h"

#include "base/strbuf.h"

#include <stdio.h>
#include <string.h>

static graft_recipe *create(graft_verb verb) {
    graft_recipe *recipe = NULL;
    assert_ok(graft_recipe_create(&recipe, verb, &test_error));
    return recipe;
}

static void set(graft_recipe *recipe, const char *name, const char *value) {
    assert_ok(graft_recipe_set(recipe, name, value, &test_error));
}

static graft_status read_text(graft_recipe *recipe, const char *text) {
    return graft_recipe_read(recipe, test_file("recipe.yaml", text, strlen(text)), &test_error);
}

static void append(void *context, const char *text, size_t n) {
    strbuf_add(context, text, n);
}

static void assert_value(const graft_recipe *recipe, const char *name, const char *expected) {
    const char *value = graft_recipe_get(recipe, name);
    assert_int_equal(value != NULL, expected != NULL);
    if (expected)
        assert_string_equal(value, expected);
}

static void options_are_found_by_every_name(void **state) {
    (void)state;
    assert_string_equal(graft_option_find("learning-rate")->name, "learning_rate");
    assert_string_equal(graft_option_find("lr")->name, "learning_rate");
    assert_string_equal(graft_option_find("lora-rank")->name, "lora_r");
    assert_null(graft_option_find("learning"));
    assert_null(graft_option_find(""));
}

/* No name may mean two options, and every option has what help and documentation print. */
static void table_is_sound(void **state) {
    (void)state;
    for (size_t i = 0; graft_option_at(i); i++) {
        const graft_option *o = graft_option_at(i);
        assert_ptr_equal(graft_option_find(o->name), o);
        assert_true(o->help && o->verbs);
        assert_true(o->choices || o->type == GRAFT_OPTION_FLAG);
        for (const char *alias = o->aliases; alias && *alias;) {
            char name[64];
            size_t n = strcspn(alias, "|");
            snprintf(name, sizeof name, "%.*s", (int)n, alias);
            assert_ptr_equal(graft_option_find(name), o);
            alias += n + (alias[n] == '|');
        }
        graft_recipe *recipe = create(GRAFT_VERB_TRAIN);
        if (o->fallback)
            set(recipe, o->name, o->fallback);
        graft_recipe_destroy(&recipe);
    }
}

static void flag_over_file_over_default(void **state) {
    (void)state;
    graft_recipe *recipe = create(GRAFT_VERB_TRAIN);
    assert_value(recipe, "lora_r", "8");
    assert_value(recipe, "model", NULL);
    set(recipe, "lora_r", "4");
    assert_ok(read_text(recipe, "lora_r: 16\nlora_alpha: 32\nmodel: null\n"));
    assert_value(recipe, "lora_r", "4");
    assert_value(recipe, "lora_alpha", "32");
    assert_value(recipe, "model", NULL);
    set(recipe, "lora_r", NULL);
    assert_value(recipe, "lora_r", "8");
    graft_recipe_destroy(&recipe);
    graft_recipe_destroy(&recipe);
}

static void lists_grow_and_are_replaced(void **state) {
    (void)state;
    graft_recipe *recipe = create(GRAFT_VERB_TRAIN);
    assert_ok(read_text(recipe, "target_modules: [q_proj, v_proj]\ndata: a.jsonl\n"));
    assert_value(recipe, "target_modules", "q_proj,v_proj");
    set(recipe, "target_modules", "k_proj,o_proj");
    set(recipe, "target-modules", "up_proj");
    assert_value(recipe, "target_modules", "k_proj,o_proj,up_proj");
    assert_value(recipe, "data", "a.jsonl");
    graft_recipe_destroy(&recipe);
}

/* Commas inside a regular expression, a file name or a stop text are part of it. */
static void values_with_commas_stay_whole(void **state) {
    (void)state;
    graft_recipe *recipe = create(GRAFT_VERB_TRAIN);
    strbuf text = {0};
    set(recipe, "target_modules", ".*\\.(q|v)_proj{1,2}");
    set(recipe, "data", "a, b.jsonl");
    assert_ok(graft_recipe_write(recipe, &(graft_sink){append, &text}, &test_error));
    graft_recipe *again = create(GRAFT_VERB_TRAIN);
    assert_ok(read_text(again, strbuf_text(&text)));
    assert_value(again, "target_modules", ".*\\.(q|v)_proj{1,2}");
    assert_value(again, "data", "a, b.jsonl");
    strbuf_free(&text);
    graft_recipe_destroy(&again);
    graft_recipe_destroy(&recipe);
}

static void written_recipes_read_back(void **state) {
    (void)state;
    graft_recipe *recipe = create(GRAFT_VERB_TRAIN), *again = create(GRAFT_VERB_TRAIN);
    strbuf first = {0}, second = {0};
    set(recipe, "model", "no");       /* a text that YAML could take for a flag */
    set(recipe, "output_dir", "1e3"); /* or for a number */
    set(recipe, "chat_template", "a: b # c");
    set(recipe, "packing", "no");
    set(recipe, "learning_rate", "2e-4");
    set(recipe, "memory_limit", "8G");
    assert_ok(graft_recipe_write(recipe, &(graft_sink){append, &first}, &test_error));
    assert_non_null(strstr(strbuf_text(&first), "packing: false\n"));
    assert_non_null(strstr(strbuf_text(&first), "learning_rate: 2e-4\n"));
    assert_null(strstr(strbuf_text(&first), "resume"));
    assert_ok(read_text(again, strbuf_text(&first)));
    assert_ok(graft_recipe_write(again, &(graft_sink){append, &second}, &test_error));
    assert_string_equal(strbuf_text(&first), strbuf_text(&second));
    assert_value(again, "model", "no");
    assert_value(again, "output_dir", "1e3");
    assert_value(again, "chat_template", "a: b # c");
    strbuf_free(&first);
    strbuf_free(&second);
    graft_recipe_destroy(&recipe);
    graft_recipe_destroy(&again);
}

static void values_in_many_spellings(void **state) {
    (void)state;
    static const char *const good[][2] = {
        {"max_steps", "1e4"},         {"max_steps", "-1"},
        {"memory_limit", "512M"},     {"memory_limit", "1.5GiB"},
        {"memory_limit", "123"},      {"packing", "off"},
        {"packing", "True"},          {"gradient_checkpointing", "true"},
        {"learning_rate", "5e-5"},    {"lora_dropout", "0.999"},
        {"seed", "9007199254740992"},
    };
    static const char *const bad[][2] = {
        {"max_steps", "2.5"},     {"max_steps", ""},         {"max_steps", "1x"},
        {"memory_limit", "8X"},   {"memory_limit", "-1"},    {"packing", "maybe"},
        {"learning_rate", "inf"}, {"learning_rate", "nan"},  {"lora_dropout", "1"},
        {"packing", "2"},         {"max_length", "1048577"}, {"gradient_checkpointing", "maybe"},
        {"lora_r", "0"},          {"threads", "-1"},         {"max_steps", "99999999999999999999"},
    };
    graft_recipe *recipe = create(GRAFT_VERB_TRAIN);
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        set(recipe, good[i][0], good[i][1]);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (graft_recipe_set(recipe, bad[i][0], bad[i][1], &test_error) != GRAFT_E_USAGE)
            fail_msg("%s: \"%s\" was accepted", bad[i][0], bad[i][1]);
    assert_value(recipe, "packing", "True"); /* what was refused changed nothing */
    graft_recipe_destroy(&recipe);
}

static void recipes_that_are_refused(void **state) {
    (void)state;
    graft_recipe *recipe = create(GRAFT_VERB_TRAIN);
    assert_refused(read_text(recipe, "lora_r: 8\nlora_rnk: 8\n"), GRAFT_E_INPUT, "line 2");
    assert_refused(read_text(recipe, "lora_rnk: 8\n"), GRAFT_E_INPUT, "did you mean \"lora_r");
    assert_refused(read_text(recipe, "lora_r: [8, 16]\n"), GRAFT_E_INPUT, "expected one value");
    assert_refused(read_text(recipe, "lora_r: many\n"), GRAFT_E_INPUT, "line 1: lora_r");
    assert_refused(graft_recipe_read(recipe, "/no/such.yaml", &test_error), GRAFT_E_INPUT,
                   "/no/such.yaml");
    assert_refused(graft_recipe_set(recipe, "zzzzzzzz", "1", &test_error), GRAFT_E_USAGE,
                   "unknown option \"zzzzzzzz\"");
    assert_null(strstr(test_error.message, "did you mean"));
    assert_int_equal(graft_recipe_set(recipe, "zzzzzzzz", "1", NULL), GRAFT_E_USAGE);
    graft_recipe_destroy(&recipe);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_are_found_by_every_name),
        cmocka_unit_test(table_is_sound),
        cmocka_unit_test(flag_over_file_over_default),
        cmocka_unit_test(lists_grow_and_are_replaced),
        cmocka_unit_test(values_with_commas_stay_whole),
        cmocka_unit_test(written_recipes_read_back),
        cmocka_unit_test(values_in_many_spellings),
        cmocka_unit_test(recipes_that_are_refused),
    };
    return cmocka_run_group_tests_name("recipe", tests, NULL, NULL);
}
