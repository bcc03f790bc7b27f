#!/usr/bin/env python3
"""What Transformers and PEFT compute on a model directory, for holding Graft against it. Not part of the tests: it needs
Python with torch, transformers and peft.

usage: hf_reference.py greedy MODEL OUT.json                     ten prompts, 100 greedy tokens each, f32
       hf_reference.py rows MODEL ALPACA.json OUT_DIR [N=50]     pre-tokenised rows, a start adapter (r 16, all-linear), and the
                                                                 losses of N steps over them, one row a step (AdamW 2e-4, clip 1)
       hf_reference.py logits MODEL ADAPTER ROWS.jsonl OUT.safetensors   logits of each row with the adapter
"""
import json, os, sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer

PROMPTS = ["The capital of France is", "Once upon a time, there was a", "def fibonacci(n):", "Water boils at",
           "The three laws of robotics are", "In 1969, the first", "My favourite recipe for bread",
           "To train a neural network, you", "The sun rises in the", "Dear Sir or Madam,"]

def load(path):
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32), AutoTokenizer.from_pretrained(path)

def greedy(path, out):
    model, tok = load(path)
    rows = []
    for p in PROMPTS:
        ids = tok(p, return_tensors="pt")["input_ids"]
        y = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=100, repetition_penalty=1.0,
                           temperature=None, top_p=None, top_k=None)
        rows.append({"prompt": p, "prompt_ids": ids[0].tolist(), "ids": y[0, ids.shape[1]:].tolist()})
    json.dump(rows, open(out, "w"), indent=1)

def alpaca_rows(tok, path, cut):
    for r in json.load(open(path)):
        q = r["instruction"] + ("\n" + r["input"] if r.get("input") else "")
        p = tok("### Instruction:\n" + q + "\n\n### Response:\n")["input_ids"]
        c = tok(r["output"], add_special_tokens=False)["input_ids"] + [tok.eos_token_id]
        yield (p + c)[:cut], ([-100] * len(p) + c)[:cut]

def rows(path, alpaca, out, n=50):
    import peft
    os.makedirs(out, exist_ok=True)
    model, tok = load(path)
    data = [x for x, _ in zip(alpaca_rows(tok, alpaca, 512), range(n))]
    with open(os.path.join(out, "rows.jsonl"), "w") as f:
        for ids, labels in data:
            f.write(json.dumps({"input_ids": ids, "labels": labels}) + "\n")
    torch.manual_seed(0)
    model = peft.get_peft_model(model, peft.LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"))
    model.save_pretrained(os.path.join(out, "start"))
    params = [p for p in model.parameters() if p.requires_grad]
    opt = torch.optim.AdamW(params, lr=2e-4, weight_decay=0.0)
    losses, model = [], model.train()
    for ids, labels in data:
        loss = model(input_ids=torch.tensor([ids]), labels=torch.tensor([labels])).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        opt.step(); opt.zero_grad()
        losses.append(loss.item())
    model.save_pretrained(os.path.join(out, "final"))
    json.dump(losses, open(os.path.join(out, "losses.json"), "w"))

def logits(path, adapter, rows_path, out):
    import peft
    from safetensors.torch import save_file
    model, _ = load(path)
    model = peft.PeftModel.from_pretrained(model, adapter)
    result = {}
    with torch.no_grad():
        for i, line in enumerate(open(rows_path)):
            result[f"logits.{i}"] = model(input_ids=torch.tensor([json.loads(line)["input_ids"]])).logits[0].float().contiguous()
    save_file(result, out)

if __name__ == "__main__":
    {"greedy": greedy, "rows": lambda p, a, o, n="50": rows(p, a, o, int(n)), "logits": logits}[sys.argv[1]](*sys.argv[2:])
