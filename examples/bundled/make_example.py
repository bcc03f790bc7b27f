#!/usr/bin/env python3
"""Makes everything of the bundled example but its training: the pre-training text, the tokenizer, the untrained model, and
the rows of the task that demo.sh teaches. Standard library only; the same seed gives the same bytes.

usage: make_example.py OUT_DIR
  OUT_DIR/pretrain.jsonl, pretrain_held.jsonl   {"text"}: little stories with questions about them
  OUT_DIR/untrained/                            config.json, tokenizer.json, model.safetensors (random, bf16)
  OUT_DIR/task_train.jsonl, task_test.jsonl     {"prompt", "completion"}: a sentence to a record

The base learns to read such sentences and to answer questions about them; it never sees a record. examples/bundled/
pretrain.yaml says how it was trained.
"""
import collections, json, os, random, struct, sys

NAMES = """Mia Ben Zoe Tom Ada Leo Eva Max Ivy Sam Lena Paul Nora Finn Ruby Hugo Clara Oscar Alice Felix Emma Jonas Lucy
Simon Greta Peter Holly David Irene Victor Sofia Martin Wanda Albert Elsa Bruno Carla Edgar Hanna Kurt""".split()
ITEMS = """apples pears plums lemons cherries carrots onions books pencils candles buttons ribbons marbles kites balls bells
shells stones cups plates spoons boxes baskets flowers roses tulips hats scarves gloves socks cakes cookies rolls eggs
lamps clocks brushes ropes coins stamps""".split()
COLORS = "red blue green yellow white black brown orange purple pink grey golden".split()
PLACES = """market bakery library station harbour garden school museum bridge castle forest beach village farm mill tower
square shop kitchen workshop""".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
VERBS = ["bought", "sold", "found", "lost", "saw", "painted", "counted", "carried", "packed", "wanted"]
FEELINGS = ["happy", "tired", "proud", "quiet", "hungry", "curious", "cold", "busy"]

SENTENCES = [
    "{who} {verb} {count} {color} {what} at the {where} on {when}.",
    "On {when}, {who} {verb} {count} {color} {what} at the {where}.",
    "At the {where}, {who} {verb} {count} {color} {what} on {when}.",
    "It was {when} when {who} {verb} {count} {color} {what} at the {where}.",
    "{count} {color} {what}: that is what {who} {verb} at the {where} on {when}.",
    "{who} went to the {where} on {when} and {verb} {count} {color} {what}.",
    "On {when} at the {where}, {count} {color} {what} were all that {who} {verb}.",
]
QUESTIONS = [
    ("Who {verb} the {what}?", "{who}"),
    ("Who was at the {where}?", "{who}"),
    ("What did {who} see there?", "{what}"),
    ("How many {what} were there?", "{count}"),
    ("What colour were the {what}?", "{color}"),
    ("Where was {who}?", "the {where}"),
    ("When was {who} at the {where}?", "{when}"),
    ("On which day was that?", "{when}"),
    ("What was {color}?", "the {what}"),
]
FILLERS = [
    "{who} was {feeling}.", "The {where} was quiet.", "Nobody knew why.", "The sun was warm.", "It rained a little.",
    "\"Look at the {what}!\" said {who}.", "\"I am {feeling},\" said {who}.", "The {what} were {color}.",
    "\"How many?\" asked a child. \"{count},\" said {who}.", "{who} smiled and went home.",
]

def facts(rng):
    return {"who": rng.choice(NAMES), "verb": rng.choice(VERBS), "count": rng.randint(2, 99), "color": rng.choice(COLORS),
            "what": rng.choice(ITEMS), "where": rng.choice(PLACES), "when": rng.choice(DAYS),
            "feeling": rng.choice(FEELINGS)}

def sentence(rng, f):
    return rng.choice(SENTENCES).format(**f)

def story(rng):
    f = facts(rng)
    lines = [sentence(rng, f)]
    for _ in range(rng.randint(0, 2)):
        lines.append(rng.choice(FILLERS).format(**f))
    text = " ".join(lines)
    for question, answer in rng.sample(QUESTIONS, rng.randint(2, 5)):
        text += "\nQuestion: " + question.format(**f) + "\nAnswer: " + answer.format(**f)
    return text

def listing(rng):
    """Things said again, so that the model learns to copy: never the task's own form."""
    f, g = facts(rng), facts(rng)
    kind = rng.randrange(4)
    if kind == 0:
        return "\n".join(f"{x['who']}: {x['count']} {x['what']}" for x in (f, g)) + \
               f"\nHow many {f['what']}? {f['count']}. How many {g['what']}? {g['count']}."
    if kind == 1:
        return f"{{{f['who']}, {f['what']}, {f['count']}}} and {{{g['who']}, {g['what']}, {g['count']}}}. " \
               f"\"{g['who']}\" comes with \"{g['what']}\", \"{f['who']}\" with \"{f['what']}\"."
    words = rng.sample(NAMES + ITEMS + COLORS + PLACES + DAYS, rng.randint(3, 12))
    text = "Words: " + ", ".join(words) + "."
    for _ in range(rng.randint(1, 3)):
        text += "\nAgain: " + ", ".join(words) + "."
    return text

def document(rng):
    return (story(rng) if rng.random() < 0.6 else listing(rng)) + "<|end|>"

def task_row(rng):
    """Built of words that the base knows, in a form that it has never seen."""
    f = facts(rng)
    return {"prompt": sentence(rng, f) + "\nRecord:",
            "completion": " Who: {who}, What: {count} {color} {what}, Where: {where}, When: {when}".format(**f)}

# ---- A byte-level BPE in tokenizer.json's form ----

def byte_characters():
    """GPT-2's printable stand-in for each byte."""
    kept = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    table, extra = {}, 0
    for b in range(256):
        if b in kept:
            table[b] = chr(b)
        else:
            table[b] = chr(256 + extra); extra += 1
    return table

def train_bpe(texts, n_merges):
    """Merges by pair counts over words; ties go to the smaller pair. Words as the pre-tokenizer cuts them."""
    import re
    table = byte_characters()
    pattern = re.compile(r"[^\S\n]?[A-Za-z]+|\d| ?[^\sA-Za-z\d]+|\s+")
    words = collections.Counter(w for t in texts for w in pattern.findall(t))
    pieces = {w: [table[b] for b in w.encode()] for w in words}
    merges = []
    while len(merges) < n_merges:
        pairs = collections.Counter()
        for w, n in words.items():
            for pair in zip(pieces[w], pieces[w][1:]):
                pairs[pair] += n
        best = max(pairs.items(), key=lambda item: (item[1], item[0]), default=None)
        if best is None or best[1] < 20:
            break
        (a, b), _ = best
        merges.append((a, b))
        for w in words:
            p, i = pieces[w], 0
            while i + 1 < len(p):
                if p[i] == a and p[i + 1] == b:
                    p[i:i + 2] = [a + b]
                i += 1
    return merges

def tokenizer_json(merges):
    table = byte_characters()
    special = ["<|pad|>", "<|begin|>", "<|end|>"]
    vocab = {t: i for i, t in enumerate(special)}
    for b in range(256):
        vocab[table[b]] = len(vocab)
    for a, b in merges:
        vocab.setdefault(a + b, len(vocab))
    added = [{"id": i, "content": t, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
             for i, t in enumerate(special)]
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": r"[^\S\n]?[A-Za-z]+|\d| ?[^\sA-Za-z\d]+|\s+"}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}]},
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<|begin|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"SpecialToken": {"id": "<|begin|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<|begin|>": {"id": "<|begin|>", "ids": [1], "tokens": ["<|begin|>"]}}},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
                  "fuse_unk": False, "byte_fallback": False, "ignore_merges": False, "vocab": vocab, "merges": [[a, b] for a, b in merges]},
    }

# ---- The untrained model ----

CONFIG = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 128, "intermediate_size": 320, "num_hidden_layers": 3,
          "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32, "max_position_embeddings": 512, "rms_norm_eps": 1e-5,
          "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": True, "attention_bias": False, "mlp_bias": False,
          "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "torch_dtype": "bfloat16"}

def tensors(vocab):
    h, f, kv = CONFIG["hidden_size"], CONFIG["intermediate_size"], CONFIG["num_key_value_heads"] * CONFIG["head_dim"]
    yield "model.embed_tokens.weight", [vocab, h]
    for i in range(CONFIG["num_hidden_layers"]):
        p = f"model.layers.{i}."
        for name, shape in (("self_attn.q_proj", [h, h]), ("self_attn.k_proj", [kv, h]), ("self_attn.v_proj", [kv, h]), ("self_attn.o_proj", [h, h]),
                            ("mlp.gate_proj", [f, h]), ("mlp.up_proj", [f, h]), ("mlp.down_proj", [h, f])):
            yield p + name + ".weight", shape
        yield p + "input_layernorm.weight", [h]
        yield p + "post_attention_layernorm.weight", [h]
    yield "model.norm.weight", [h]

def write_model(folder, vocab, rng):
    header, blobs, at = {"__metadata__": {"format": "pt"}}, [], 0
    for name, shape in sorted(tensors(vocab)):
        n = shape[0] * (shape[1] if len(shape) > 1 else 1)
        scale = 0 if len(shape) == 1 else 0.05 if "embed" in name else shape[1] ** -0.5
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            scale /= (2 * CONFIG["num_hidden_layers"]) ** 0.5
        values = [rng.gauss(0, scale) for _ in range(n)] if scale else [1.0] * n
        words = struct.unpack(f"<{n}I", struct.pack(f"<{n}f", *values))
        blobs.append(struct.pack(f"<{n}H", *((w + 0x7FFF + (w >> 16 & 1)) >> 16 for w in words)))   # f32 to bf16, ties to even
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + 2 * n]}
        at += 2 * n
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(os.path.join(folder, "model.safetensors"), "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(blobs))

def write_rows(path, rows):
    with open(path, "w") as f:
        for row in rows:
            f.write(json.dumps(row) + "\n")

def main():
    out = sys.argv[1]
    os.makedirs(os.path.join(out, "untrained"), exist_ok=True)
    rng = random.Random(20)
    documents = [document(rng) for _ in range(60000)]
    write_rows(os.path.join(out, "pretrain.jsonl"), ({"text": t} for t in documents))
    write_rows(os.path.join(out, "pretrain_held.jsonl"), ({"text": document(rng)} for _ in range(300)))
    rows, seen = [], set()
    while len(rows) < 2200:
        row = task_row(rng)
        if row["prompt"] not in seen:
            seen.add(row["prompt"]); rows.append(row)
    write_rows(os.path.join(out, "task_train.jsonl"), rows[:2000])
    write_rows(os.path.join(out, "task_test.jsonl"), rows[2000:])
    tokenizer = tokenizer_json(train_bpe(documents[:4000], 700))
    folder = os.path.join(out, "untrained")
    vocab = (len(tokenizer["model"]["vocab"]) + 63) // 64 * 64
    with open(os.path.join(folder, "tokenizer.json"), "w") as f:
        json.dump(tokenizer, f, ensure_ascii=False, indent=1)
    with open(os.path.join(folder, "tokenizer_config.json"), "w") as f:
        json.dump({"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|begin|>", "eos_token": "<|end|>", "pad_token": "<|pad|>",
                   "model_max_length": 512}, f, indent=2)
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump(CONFIG | {"vocab_size": vocab}, f, indent=2)
    with open(os.path.join(folder, "generation_config.json"), "w") as f:
        json.dump({"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}, f, indent=2)
    write_model(folder, vocab, rng)

main()
