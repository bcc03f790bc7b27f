"""Makes corpus/tokenizer: small tokenizers over every component, each with a text (see fuzz_tokenizer.c)."""
import json
import os

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "corpus", "tokenizer")
FIXTURES = os.path.join(HERE, "..", "fixtures", "tokenizers")
TEXT = "Hello  wörld, it's 123 <x>ﬁ 中文\n\te\u0301 \u0001 don't▁stop"
BYTES = [chr(b) for b in list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))]
BYTES += [chr(256 + i) for i in range(256 - len(BYTES))]
BPE = {"type": "BPE", "unk_token": "<unk>", "fuse_unk": True, "vocab": {c: i for i, c in enumerate(
    ["<unk>", "a", "b", "o", "l", "lo", "▁", "▁l", "H", "e", "He", "<0x41>", "##o", "o</w>"])},
    "merges": ["l o", ["▁", "l"], "H e"]}
BYTE_BPE = {"type": "BPE", "vocab": {c: i for i, c in enumerate(BYTES + ["he", "ll", "Ġw"])},
            "merges": ["h e", "l l", "Ġ w"]}
BYTE_TOKENS = {f"<0x{b:02X}>": b + 14 for b in range(256)}
UNIGRAM = {"type": "Unigram", "unk_id": 0, "byte_fallback": True, "vocab": [["<unk>", 0.0], ["▁", -2.0], ["lo", -3.5],
           ["l", -4], ["o", -4], ["<0xC3>", -9], ["<0xB6>", -9], ["▁w", -5]]}
WORDPIECE = {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 20,
             "vocab": {"[UNK]": 0, "he": 1, "##llo": 2, "it": 3, "[CLS]": 4, "[SEP]": 5}}
WORDLEVEL = {"type": "WordLevel", "unk_token": "<unk>", "vocab": {"<unk>": 0, "Hello": 1}}
CHARSMAP = "BAAAAAAAAAA="


def split(pattern, behavior, invert=False):
    return {"type": "Split", "pattern": pattern, "behavior": behavior, "invert": invert}


def sequence(key, *items):
    return {"type": "Sequence", key: list(items)}


def template(token, place):
    return {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": token, "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}}], "pair": [],
            "special_tokens": {token: {"id": token, "ids": [place], "tokens": [token]}}}


LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
          r"\s+(?!\S)|\s+")
META = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": True}
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
FLAGS = [{"id": 99, "content": "<x>", "lstrip": True, "rstrip": True, "normalized": False, "special": True},
         {"id": 99, "content": "It", "single_word": True, "normalized": True}]
CASES = {
    "gpt2": dict(model=BYTE_BPE, pre_tokenizer=BYTE_LEVEL, post_processor=BYTE_LEVEL, decoder=BYTE_LEVEL, added_tokens=FLAGS),
    "llama3": dict(model={**BYTE_BPE, "ignore_merges": True}, normalizer={"type": "NFC"}, decoder=BYTE_LEVEL,
                   post_processor=sequence("processors", BYTE_LEVEL, template("he", 256)), pre_tokenizer=sequence(
                       "pretokenizers", split({"Regex": LLAMA3}, "Isolated"), {**BYTE_LEVEL, "use_regex": False})),
    "llama2": dict(model={**BPE, "byte_fallback": True, "vocab": {**BPE["vocab"], **BYTE_TOKENS, "<0x41>": 79}},
                   normalizer=sequence("normalizers", {"type": "Prepend", "prepend": "▁"},
                                       {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}),
                   decoder=sequence("decoders", {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                                    {"type": "ByteFallback"}, {"type": "Fuse"},
                                    {"type": "Strip", "content": " ", "start": 1, "stop": 1})),
    "affixes": dict(model={**BPE, "continuing_subword_prefix": "##", "end_of_word_suffix": "</w>", "merges": []},
                    pre_tokenizer={"type": "BertPreTokenizer"}, decoder={"type": "BPEDecoder", "suffix": "</w>"}),
    "unigram": dict(model=UNIGRAM, pre_tokenizer=META, decoder=META, normalizer=sequence(
        "normalizers", {"type": "Nmt"}, {"type": "NFKC"}, {"type": "Precompiled", "precompiled_charsmap": CHARSMAP},
        {"type": "Strip", "strip_left": True, "strip_right": True})),
    "wordpiece": dict(model=WORDPIECE, pre_tokenizer={"type": "BertPreTokenizer"},
                      normalizer={"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
                                  "strip_accents": None, "lowercase": True},
                      post_processor={"type": "BertProcessing", "sep": ["[SEP]", 5], "cls": ["[CLS]", 4]},
                      decoder={"type": "WordPiece", "prefix": "##", "cleanup": True}),
    "wordlevel": dict(model=WORDLEVEL, normalizer=sequence("normalizers", {"type": "NFKD"}, {"type": "StripAccents"},
                                                           {"type": "NFD"}, {"type": "Lowercase"}, {"type": "ByteLevel"}),
                      pre_tokenizer=sequence("pretokenizers", {"type": "Whitespace"}, {"type": "UnicodeScripts"},
                                             {"type": "Digits", "individual_digits": False},
                                             {"type": "FixedLength", "length": 3},
                                             {"type": "CharDelimiterSplit", "delimiter": "o"})),
    "splits": dict(model=WORDLEVEL, pre_tokenizer=sequence(
        "pretokenizers", split({"Regex": r"\s+"}, "MergedWithNext"), split({"String": "l"}, "MergedWithPrevious", True),
        split({"Regex": ""}, "Contiguous"), {"type": "Punctuation", "behavior": "Removed"}, {"type": "WhitespaceSplit"})),
    "ctc": dict(model=BPE, decoder=sequence("decoders", {"type": "CTC", "pad_token": "l", "word_delimiter_token": "o",
                                                         "cleanup": True}, {"type": "Fuse"},
                                            {"type": "Replace", "pattern": {"Regex": "[a-h]+"}, "content": "-"})),
    "roberta": dict(model=BYTE_BPE, pre_tokenizer=BYTE_LEVEL, decoder=None, post_processor={
        "type": "RobertaProcessing", "sep": ["he", 256], "cls": ["ll", 257], "trim_offsets": True, "add_prefix_space": True}),
}


def main():
    os.makedirs(OUT, exist_ok=True)
    for name, case in CASES.items():
        file = {"version": "1.0", "added_tokens": [], "normalizer": None, "pre_tokenizer": None, "post_processor": None,
                "decoder": None, **case}
        with open(os.path.join(OUT, name), "wb") as out:
            out.write(json.dumps(file, ensure_ascii=False, separators=(",", ":")).encode() + b"\xff" + TEXT.encode())
    for name, source in (("sp_bpe", "sp_bpe/tokenizer.model"), ("sp_unigram", "sp_unigram/tokenizer.model")):
        with open(os.path.join(OUT, name), "wb") as out:
            data = open(os.path.join(FIXTURES, source), "rb").read()
            out.write(data.replace(b"\xff", b"\xfe") + b"\xff" + TEXT.encode())
    with open(os.path.join(OUT, "tiktoken"), "wb") as out:
        out.write(open(os.path.join(FIXTURES, "tiktoken/small.tiktoken"), "rb").read() + b"\xff" + TEXT.encode())


main()
