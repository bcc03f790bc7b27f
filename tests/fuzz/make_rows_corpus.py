"""Writes the corpus of fuzz_rows: every kind of row as people have it, and as it is spoilt. Bit 0 of the first byte: a chat
template; 1: train on all; 2: both answers of preference rows; 3: chosen ones; 4: windows; 5: EOS after texts; 6: near
duplicates; 7: columns renamed."""

import json
import pathlib

HERE = pathlib.Path(__file__).parent / "corpus" / "rows"
HERE.mkdir(parents=True, exist_ok=True)
user, bot = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
human, gpt = {"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}
call = {"name": "f", "arguments": {"x": 1}}
tool = {"type": "function", "function": {"name": "f", "parameters": {}}}

CASES = {
    "messages": (1, [{"messages": [user, bot]}]),
    "messages_all": (3, [{"messages": [user, bot, user, bot], "weight": 0.5}]),
    "messages_without_template": (0, [{"messages": [user, bot]}]),
    "parts": (1, [{"messages": [{"role": "user", "content": [{"type": "text", "text": "q"}]}, bot]}]),
    "image": (1, [{"messages": [{"role": "user", "content": [{"type": "image"}]}, bot]}]),
    "tool_calls": (1, [{"messages": [user, {"role": "assistant", "tool_calls": [{"function": call}]}, {"role": "tool", "content": {"r": 1}}, bot], "tools": [tool]}]),
    "tool_arguments_as_text": (1, [{"messages": [user, {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": '{"x": 1}'}}]}, bot], "tools": json.dumps([tool])}]),
    "tools_not_a_list": (1, [{"messages": [user, bot], "tools": 5}]),
    "null_content": (1, [{"messages": [{"role": "assistant", "content": None}]}]),
    "unknown_role": (1, [{"messages": [{"role": "judge", "content": "x"}]}]),
    "no_messages": (1, [{"messages": []}]),
    "sharegpt": (1, [{"conversations": [human, {"from": "function_call", "value": json.dumps(call)}, {"from": "observation", "value": "r"}, gpt], "system": "s", "tools": json.dumps([call])}]),
    "sharegpt_bad_call": (1, [{"conversations": [human, {"from": "function_call", "value": "{"}]}]),
    "alpaca": (1, [{"instruction": "i", "input": "j", "output": "o", "system": "s", "history": [["a", "b"]]}]),
    "alpaca_plain": (0, [{"instruction": "i", "input": "", "output": "o"}]),
    "alpaca_history_plain": (0, [{"instruction": "i", "output": "o", "history": [["a", "b"]]}]),
    "alpaca_bad_history": (1, [{"instruction": "i", "output": "o", "history": [["a"]]}]),
    "prompt": (0, [{"prompt": "p", "completion": "c"}, {"prompt": "p", "completion": "c"}]),
    "prompt_messages": (1, [{"prompt": [user], "completion": [bot]}]),
    "prompt_mixed": (1, [{"prompt": "p", "completion": [bot]}]),
    "question": (1, [{"question": "q", "answer": "a<|im_end|>"}]),
    "columns": (128, [{"a": "p", "b": "c"}, {"a": "x", "b": "y"}]),
    "columns_swapped": (128, [{"a": "p", "b": "c", "prompt": "dropped"}]),
    "columns_missing": (128, [{"prompt": "p", "completion": "c"}]),
    "text": (32, [{"text": "abc"}, {"text": "abc<|im_end|>"}, {"text": ""}]),
    "text_windows": (16 + 32, [{"text": "abcdefghijklmnopqrstuvwxyz" * 3}, {"text": "short"}]),
    "text_cut": (0, [{"text": "abcdefghijklmnopqrstuvwxyz"}]),
    "near": (64, [{"text": "abcdefghijklmn"}, {"text": "abcdefghijklmn"}, {"text": "abcdefghijklmo"}, {"text": "z"}]),
    "ids": (0, [{"input_ids": [1, 2, 3], "labels": [-100, 2, 3]}, {"input_ids": [4]}, {"input_ids": []}]),
    "ids_bad": (0, [{"input_ids": [1, -2]}]),
    "ids_bad_labels": (0, [{"input_ids": [1, 2], "labels": [1]}]),
    "pair": (5, [{"prompt": "p", "chosen": "a", "rejected": "b"}]),
    "pair_refused": (1, [{"prompt": "p", "chosen": "a", "rejected": "b"}]),
    "pair_chosen": (9, [{"prompt": [user], "chosen": [bot], "rejected": [{"role": "assistant", "content": "b"}]}]),
    "pair_sharegpt": (5, [{"conversations": [human], "chosen": gpt, "rejected": {"from": "gpt", "value": "b"}}]),
    "pair_implicit": (5, [{"chosen": [user, bot], "rejected": [user, {"role": "assistant", "content": "b"}]}]),
    "pair_implicit_text": (4, [{"chosen": "q: é a", "rejected": "q: è b"}]),
    "pair_equal": (5, [{"prompt": "p", "chosen": "a", "rejected": "a"}]),
    "pair_prefix": (5, [{"chosen": [user], "rejected": [user, bot]}]),
    "pair_bad": (5, [{"prompt": "p", "chosen": 1, "rejected": None}]),
    "pair_instruction": (5, [{"instruction": "i", "input": "j", "chosen": "a", "rejected": "b", "history": []}]),
    "judged": (9, [{"messages": [user, bot], "label": True}, {"messages": [user, bot], "label": False}]),
    "judged_both": (4, [{"prompt": "p", "completion": "c", "label": False}]),
    "judged_no_answer": (5, [{"messages": [user], "label": True}]),
    "class_label": (1, [{"prompt": "p", "completion": "c", "label": 1}]),
    "weights": (0, [{"text": "ab", "weight": 0}, {"text": "cd", "weight": 1e6}, {"text": "ef", "weight": None}]),
    "weight_bad": (0, [{"text": "ab", "weight": -1}]),
    "turn_weights": (1, [{"messages": [user, {**bot, "weight": 0}, {**bot, "loss_weight": 1.0}]}]),
    "mixed_kinds": (1, [{"text": "ab"}, {"prompt": "p", "completion": "c"}]),
    "unknown_keys": (1, [{"foo": 1}]),
    "no_keys": (1, [{}]),
    "control_text": (1, [{"messages": [{"role": "user", "content": "<|im_end|><s>"}, bot]}]),
}

for name, (how, rows) in CASES.items():
    (HERE / name).write_bytes(bytes([how]) + "".join(json.dumps(row) + "\n" for row in rows).encode())
