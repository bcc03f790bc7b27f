"""The same as tokenizer_speed.c with Hugging Face's tokenizers: tokenizer_speed.py TOKENIZER TEXT... (one thread)."""
import os
import sys
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
from tokenizers import Tokenizer


def load(path):
    if os.path.exists(os.path.join(path, "tokenizer.json")):
        path = os.path.join(path, "tokenizer.json")
    if os.path.isfile(path):
        return Tokenizer.from_file(path)
    from transformers import AutoTokenizer
    return AutoTokenizer.from_pretrained(path)._tokenizer


def main():
    start = time.perf_counter()
    tokenizer = load(sys.argv[1])
    tokenizer.no_padding()
    tokenizer.no_truncation()
    print(f"# {sys.argv[1]} loaded in {time.perf_counter() - start:.3f} s")
    print("text,documents,bytes,tokens,encode_mb_s,decode_mb_s")
    for path in sys.argv[2:]:
        data = open(path, "rb").read().decode()
        separator = "\n" if ".jsonl" in path else "\n\n"
        documents = [d + separator for d in data.split(separator)]
        documents[-1] = documents[-1][:-len(separator)]
        best_encode = best_decode = float("inf")
        for _ in range(4):
            tokens = 0
            encode = decode = 0.0
            for document in documents:
                a = time.perf_counter()
                ids = tokenizer.encode(document, add_special_tokens=True).ids
                b = time.perf_counter()
                tokenizer.decode(ids, skip_special_tokens=True)
                encode += b - a
                decode += time.perf_counter() - b
                tokens += len(ids)
            best_encode, best_decode = min(best_encode, encode), min(best_decode, decode)
        size = len(data.encode())
        print(f"{path},{len(documents)},{size},{tokens},{size / best_encode / 1e6:.1f},{size / best_decode / 1e6:.1f}")


main()
