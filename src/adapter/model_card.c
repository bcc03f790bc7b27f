#include "adapter/model_card.h"

#include "base/atomic_file.h"
#include "formats/yaml.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static bool is_full(const adapter *a) {
    return !strcmp(a->config.method, "full");
}

static void write_front_matter(strbuf *out, const model_card *card, const adapter *a) {
    strbuf_add_text(out, "---\n");
    if (card->base_name) {
        strbuf_add_text(out, "base_model: ");
        yaml_write_scalar(out, card->base_name);
        strbuf_add_char(out, '\n');
    }
    strbuf_printf(out, "library_name: %s\n", is_full(a) ? "transformers" : "peft");
    strbuf_printf(out, "pipeline_tag: text-generation\ntags:\n- %s\n- graft\n",
                  is_full(a) ? "full-fine-tuning" : a->config.method);
    if (card->base_name && !is_full(a)) {
        strbuf tag = {0};
        strbuf_printf(&tag, "base_model:adapter:%s", card->base_name);
        strbuf_add_text(out, "- ");
        yaml_write_scalar(out, strbuf_text(&tag));
        strbuf_add_char(out, '\n');
        strbuf_free(&tag);
    }
    strbuf_add_text(out, "---\n\n");
}

/* `text` as code, whatever backticks and line breaks a file name may hold. */
static void write_code(strbuf *out, const char *text) {
    strbuf_add_char(out, '`');
    for (; *text; text++)
        strbuf_add_char(out, *text == '`' || (unsigned char)*text < 0x20 ? '\'' : *text);
    strbuf_add_char(out, '`');
}

static void write_what(strbuf *out, const model_card *card, const adapter *a) {
    const adapter_config *config = &a->config;
    const char *base = card->base_name ? card->base_name : "its base model";
    if (is_full(a)) {
        strbuf_add_text(out, "# Fine-tuned model\n\nAll weights of ");
        write_code(out, base);
        strbuf_printf(out, " trained further (%lld parameters).\n\n",
                      (long long)adapter_trained_count(a));
        return;
    }
    strbuf_add_text(out, "# LoRA adapter\n\nA LoRA adapter for ");
    write_code(out, base);
    strbuf_printf(out,
                  ": %lld trained parameters, %.3g %% of the base's.\n\n"
                  "| setting | value |\n|---|---|\n| rank | %d |\n| alpha | %g%s |\n"
                  "| dropout | %g |\n| targets | ",
                  (long long)adapter_trained_count(a),
                  100.0 * (double)adapter_trained_count(a) / (double)model_parameters(a->spec),
                  (int)config->r, config->lora_alpha,
                  config->use_rslora ? " (rank-stabilised)" : "", config->lora_dropout);
    if (config->target_regex)
        write_code(out, config->target_regex);
    for (size_t i = 0; i < config->target_modules.n; i++) {
        strbuf_add_text(out, i ? ", " : "");
        write_code(out, config->target_modules.items[i]);
    }
    strbuf_add_text(out, " |\n");
    for (size_t i = 0; i < config->modules_to_save.n; i++) {
        strbuf_add_text(out, i ? ", " : "| trained whole | ");
        write_code(out, config->modules_to_save.items[i]);
    }
    strbuf_add_text(out, config->modules_to_save.n ? " |\n\n" : "\n");
}

static void write_training(strbuf *out, const model_card *card) {
    strbuf_add_text(out, "## Training\n\n| | |\n|---|---|\n| data | ");
    for (size_t i = 0; i < card->n_data; i++) {
        const char *slash = strrchr(card->data[i], '/');
        strbuf_add_text(out, i ? ", " : "");
        write_code(out, slash ? slash + 1 : card->data[i]);
    }
    strbuf_printf(out,
                  " |\n| rows, supervised tokens | %lld, %lld |\n| steps, epochs | %lld, %.4g |\n"
                  "| rows a step | %lld |\n| longest row | %lld tokens |\n"
                  "| optimizer | %s, learning rate %g, %s |\n| seed | %llu |\n",
                  (long long)card->rows, (long long)card->supervised_tokens, (long long)card->steps,
                  card->epochs, (long long)card->rows_per_step, (long long)card->max_length,
                  card->optimizer, card->learning_rate, card->schedule,
                  (unsigned long long)card->seed);
    if (isfinite(card->first_loss) && isfinite(card->last_loss))
        strbuf_printf(out, "| training loss, first and last step | %.4f, %.4f |\n",
                      card->first_loss, card->last_loss);
    if (isfinite(card->eval_loss))
        strbuf_printf(out, "| evaluation loss (perplexity) | %.4f (%.4g) |\n", card->eval_loss,
                      exp(card->eval_loss));
    strbuf_add_char(out, '\n');
}

/* A Python string literal. */
static void write_quoted(strbuf *out, const char *text) {
    json_write_string(out, text, strlen(text));
}

static void write_use(strbuf *out, const model_card *card, const adapter *a) {
    const char *base = card->base_name ? card->base_name : "BASE";
    strbuf_add_text(out, "## Use\n\nWith Graft, from this folder:\n\n    graft generate --model ");
    if (is_full(a)) {
        strbuf_add_text(out, ". --prompt TEXT\n\nWith Transformers:\n\n```python\n"
                             "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
                             "model = AutoModelForCausalLM.from_pretrained(\".\")\n"
                             "tokenizer = AutoTokenizer.from_pretrained(\".\")\n```\n");
        return;
    }
    write_quoted(out, base);
    strbuf_add_text(out, " --adapter . --prompt TEXT\n\nWith PEFT:\n\n```python\n"
                         "from peft import PeftModel\n"
                         "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
                         "base = AutoModelForCausalLM.from_pretrained(");
    write_quoted(out, base);
    strbuf_add_text(out, ")\nmodel = PeftModel.from_pretrained(base, \".\")\n"
                         "tokenizer = AutoTokenizer.from_pretrained(");
    write_quoted(out, base);
    strbuf_add_text(out, ")\n```\n");
}

graft_status model_card_write(const model_card *card, const adapter *a, const char *folder,
                              graft_error *err) {
    strbuf text = {0};
    char *path = path_join(folder, "README.md");
    write_front_matter(&text, card, a);
    write_what(&text, card, a);
    write_training(&text, card);
    write_use(&text, card, a);
    strbuf_printf(&text, "\nMade by Graft %s.\n", GRAFT_VERSION);
    graft_status status = !path || text.failed
                              ? error_memory(err, text.length, "README.md")
                              : file_write_atomic(path, text.data, text.length, err);
    strbuf_free(&text);
    free(path);
    return status;
}
