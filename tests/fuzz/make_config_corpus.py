"""Writes corpus/config: one small config.json for each thing that Graft reads or refuses in one."""

import json
import pathlib

HERE = pathlib.Path(__file__).parent / "corpus" / "config"
HERE.mkdir(parents=True, exist_ok=True)

BASE = {
    "model_type": "llama", "vocab_size": 320, "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128, "rms_norm_eps": 1e-5,
}
QWEN = BASE | {"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 9, "max_window_layers": 1}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "mscale": 0.7, "mscale_all_dim": 1.0}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 64}

CASES = {
    "llama": BASE,
    "mistral": BASE | {"model_type": "mistral", "sliding_window": 12},
    "qwen2": QWEN,
    "qwen2_layer_types": QWEN | {"layer_types": ["full_attention", "sliding_attention"]},
    "qwen2_layer_types_short": QWEN | {"layer_types": ["full_attention"]},
    "qwen3": BASE | {"model_type": "qwen3", "head_dim": 16, "attention_bias": True, "tie_word_embeddings": True},
    "rope_linear_old": BASE | {"rope_theta": 500000.0, "rope_scaling": {"type": "linear", "factor": 2}},
    "rope_dynamic": BASE | {"max_position_embeddings": 4, "rope_parameters": {"rope_type": "dynamic", "factor": 2.0}},
    "rope_yarn": BASE | {"rope_parameters": YARN},
    "rope_yarn_equal_betas": BASE | {"rope_parameters": YARN | {"beta_fast": 3, "beta_slow": 3, "truncate": False}},
    "rope_llama3": BASE | {"rope_scaling": LLAMA3},
    "rope_longrope": BASE | {"rope_scaling": {"rope_type": "longrope"}},
    "rope_nested": BASE | {"rope_parameters": {"full_attention": {"rope_theta": 1e4}}},
    "rope_partial": BASE | {"partial_rotary_factor": 0.5},
    "eos_list": BASE | {"eos_token_id": [2, 7], "bos_token_id": None, "pad_token_id": 0},
    "bfloat16": BASE | {"torch_dtype": "bfloat16", "attention_dropout": 0.1, "mlp_bias": True},
    "float8": BASE | {"dtype": "float8_e4m3fn"},
    "gelu": BASE | {"hidden_act": "gelu"},
    "quantised": BASE | {"quantization_config": {"quant_method": "gptq"}},
    "auto_map": {"auto_map": {"AutoModel": "x.X"}},
    "other_type": BASE | {"model_type": "mamba"},
    "gpt2": {"model_type": "gpt2", "n_embd": 48, "n_layer": 2, "n_head": 4, "n_positions": 64, "vocab_size": 320},
    "opt_projected": {"model_type": "opt", "hidden_size": 48, "ffn_dim": 96, "num_attention_heads": 4, "num_hidden_layers": 2,
                      "word_embed_proj_dim": 24, "do_layer_norm_before": False},
    "bloom": {"model_type": "bloom", "hidden_size": 48, "n_layer": 2, "n_head": 3},
    "mpt": {"model_type": "mpt", "d_model": 48, "n_heads": 3, "n_layers": 2, "attn_config": {"clip_qkv": 0.5, "alibi": True}},
    "falcon_new": {"model_type": "falcon", "hidden_size": 48, "num_attention_heads": 4, "num_hidden_layers": 2,
                   "new_decoder_architecture": True, "num_kv_heads": 2},
    "gpt_neox": {"model_type": "gpt_neox", "hidden_size": 48, "num_attention_heads": 4, "num_hidden_layers": 2,
                 "intermediate_size": 96, "rotary_pct": 0.25},
    "gemma2": BASE | {"model_type": "gemma2", "head_dim": 12, "sliding_window": 8, "query_pre_attn_scalar": 20},
    "gemma3": BASE | {"model_type": "gemma3_text", "head_dim": 12, "sliding_window": 8, "rope_local_base_freq": 1e4},
    "phi3_longrope": BASE | {"model_type": "phi3", "original_max_position_embeddings": 32, "rope_scaling": {
        "type": "longrope", "short_factor": [1.0] * 6, "long_factor": [2.0] * 6}},
    "cohere2": BASE | {"model_type": "cohere2", "sliding_window": 8, "logit_scale": 0.25},
    "olmo3": BASE | {"model_type": "olmo3", "sliding_window": 8},
    "qwen2_moe": BASE | {"model_type": "qwen2_moe", "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24,
                         "shared_expert_intermediate_size": 40, "mlp_only_layers": [0]},
    "gpt_oss": BASE | {"model_type": "gpt_oss", "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 8,
                       "head_dim": 12},
    "deepseek_v3": BASE | {"model_type": "deepseek_v3", "n_routed_experts": 8, "num_experts_per_tok": 2, "n_group": 4,
                           "topk_group": 2, "kv_lora_rank": 16, "q_lora_rank": None, "qk_rope_head_dim": 8,
                           "qk_nope_head_dim": 12, "v_head_dim": 10, "moe_intermediate_size": 24},
    "router_groups_uneven": BASE | {"model_type": "deepseek_v3", "n_routed_experts": 7, "n_group": 4, "topk_group": 9},
    "experts_largest": BASE | {"model_type": "mixtral", "num_local_experts": 1 << 31, "num_experts_per_tok": 1 << 31},
    "heads_zero": BASE | {"num_attention_heads": 0},
    "heads_largest": BASE | {"num_attention_heads": 65536, "num_key_value_heads": 1, "head_dim": 256},
    "sizes_largest": BASE | {"hidden_size": 1 << 24, "intermediate_size": 1 << 24, "vocab_size": 1 << 26, "head_dim": 2,
                             "num_hidden_layers": 4096, "tie_word_embeddings": False},
    "layers_too_many": BASE | {"num_hidden_layers": 1 << 31},
    "no_hidden_size": {"model_type": "llama"},
    "text_number": BASE | {"hidden_size": "48"},
    "list": [],
}
for name, value in CASES.items():
    (HERE / name).write_text(json.dumps(value))
(HERE / "theta_nan").write_text(json.dumps(BASE)[:-1] + ', "rope_theta": NaN}')
(HERE / "theta_huge").write_text(json.dumps(BASE)[:-1] + ', "rope_theta": 1e308}')
(HERE / "truncated").write_text(json.dumps(BASE)[:-20])
