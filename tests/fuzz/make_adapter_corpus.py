"""Writes corpus/adapter: one small adapter_config.json for each thing that Graft reads or refuses in one."""

import json
import pathlib

HERE = pathlib.Path(__file__).parent / "corpus" / "adapter"
HERE.mkdir(parents=True, exist_ok=True)

LORA = {"peft_type": "LORA", "task_type": "CAUSAL_LM"}
WHOLE = LORA | {
    "r": 4, "lora_alpha": 11.5, "lora_dropout": 0.05, "use_rslora": True, "lora_bias": True, "bias": "lora_only",
    "init_lora_weights": "gaussian", "target_modules": ["q_proj", "down_proj"], "exclude_modules": r".*\.2\..*",
    "layers_to_transform": [0, 1], "layers_pattern": "layers", "rank_pattern": {"q_proj": 3, r"layers\.1\..*": 2},
    "alpha_pattern": {"^model.layers.0.self_attn.q_proj": 1}, "modules_to_save": ["norm"], "revision": "main",
    "base_model_name_or_path": "../../x", "megatron_core": "megatron.core", "peft_version": "0.21.2",
}
CASES = {
    "defaults": LORA,
    "whole": WHOLE,
    "regex": LORA | {"target_modules": r".*\.(\d)\.self_attn\.(q|v)_proj(?<!x)"},
    "regex_bad": LORA | {"target_modules": "(*)["},
    "regex_slow": LORA | {"target_modules": "(([a-z._0-9]+)+)+[!?]"},
    "regex_deep": LORA | {"target_modules": "(" * 300 + "q" + ")" * 300},
    "regex_recursive": LORA | {"target_modules": "((?R)q)*"},
    "regex_verb": LORA | {"target_modules": "(*LIMIT_MATCH=4000000000)(([a-z._]+)+)+[!?]"},
    "regex_callout": LORA | {"target_modules": "(?C1).*q_proj"},
    "all_linear": LORA | {"target_modules": "all-linear", "r": 65536},
    "embedding": LORA | {"target_modules": ["embed_tokens", "lm_head"]},
    "embedding_one_weight": LORA | {"modules_to_save": ["lm_head"], "ensure_weight_tying": True},
    "saved_container": LORA | {"modules_to_save": ["mlp", "layers.0"]},
    "saved_everything": LORA | {"modules_to_save": ["model"]},
    "bias_all": LORA | {"bias": "all", "target_modules": ["down_proj"]},
    "layer_huge": LORA | {"layers_to_transform": 2**63 - 1},
    "rank_huge": LORA | {"r": 10**9},
    "alpha_infinite": LORA | {"lora_alpha": float("inf")},
    "names_empty": LORA | {"target_modules": [""]},
    "names_mixed": LORA | {"target_modules": ["q_proj", None]},
    "dora": LORA | {"use_dora": True},
    "pissa": LORA | {"init_lora_weights": "pissa"},
    "unknown_key": LORA | {"unknown": {"a": [1]}},
    "ia3": {"peft_type": "IA3"},
    "no_type": {"r": 8},
    "list": [],
}
for name, value in CASES.items():
    (HERE / name).write_text(json.dumps(value))
