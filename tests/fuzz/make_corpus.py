"""Writes the corpora of the formats' fuzz targets: the rows of docs/bad-input.md and what must be accepted, one small file each."""

import gzip
import json
import pathlib

HERE = pathlib.Path(__file__).parent / "corpus"


def write(target, files):
    folder = HERE / target
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        data = content.encode() if isinstance(content, str) else content
        (folder / name).write_bytes(data)


def tensors(header, data=b"", length=None):
    text = header if isinstance(header, bytes) else header.encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def one(dtype="U8", shape="[1]", offsets="[0,1]", name="a"):
    return '{"%s":{"dtype":"%s","shape":%s,"data_offsets":%s}}' % (name, dtype, shape, offsets)


def two(first, second, names="ab"):
    item = '"%s":{"dtype":"U8","shape":[%d],"data_offsets":[%d,%d]}'
    return "{" + ",".join(
        item % (name, end - begin, begin, end) for name, (begin, end) in zip(names, (first, second))
    ) + "}"


write(
    "safetensors",
    {
        "accepted": tensors(two((0, 1), (1, 3)), b"abc"),
        "accepted_aligned": tensors(one("F32", "[1,2]", "[0,8]") + " " * 6, bytes(8)),
        "accepted_empty": tensors("{}"),
        "accepted_metadata": tensors('{"__metadata__":{"format":"pt","k":"\\ud83d\\ude00"}}'),
        "accepted_metadata_null": tensors('{"__metadata__":null}'),
        "accepted_misaligned": tensors(one("F64", "[1]", "[0,8]") + " ", bytes(8)),
        "accepted_scalar": tensors(one("F32", "[]", "[0,4]"), b"abcd"),
        "accepted_no_elements": tensors(one("F32", "[2,0]", "[0,0]")),
        "accepted_leading_blanks": tensors(" \n" + one(), b"a"),
        "empty_file": b"",
        "seven_bytes": b"\1\0\0\0\0\0\0",
        "header_longer_than_file": tensors("{}", length=3),
        "header_length_wraps": tensors("{}", length=2**64 - 1),
        "header_length_wraps_with_8": tensors("{}", length=2**64 - 8),
        "header_empty": tensors(""),
        "header_array": tensors("[]"),
        "header_cut": tensors('{"a":{"dtype":"U8","shape":[1],"data_off'),
        "header_not_utf8": tensors(b'{"\xff":1}'),
        "header_overlong_utf8": tensors(b'{"\xc0\xaf":1}'),
        "header_twice": tensors("{}{}"),
        "duplicate_tensor": tensors(two((0, 1), (1, 2), "aa"), b"ab"),
        "duplicate_member": tensors('{"a":{"dtype":"U8","dtype":"U8","shape":[],"data_offsets":[0,1]}}', b"a"),
        "metadata_number": tensors('{"__metadata__":{"a":1}}'),
        "metadata_deep": tensors('{"__metadata__":{"a":' + "[" * 2000),
        "metadata_twice": tensors('{"__metadata__":{},"__metadata__":{}}'),
        "shape_over_64_bits": tensors(one("U8", "[2,18446744073709551614]", "[0,0]")),
        "shape_bytes_overflow": tensors(one("I32", "[2,9223372036854775807]", "[0,0]")),
        "shape_no_array": tensors(one("U8", "{}", "[0,1]"), b"a"),
        "offsets_backwards": tensors(one(offsets="[1,0]"), b"a"),
        "offsets_negative": tensors(one(offsets="[-1,0]"), b"a"),
        "offsets_real": tensors(one(offsets="[0,1.0]"), b"a"),
        "offsets_text": tensors(one(offsets='["0","1"]'), b"a"),
        "offsets_three": tensors(one(offsets="[0,1,1]"), b"a"),
        "range_differs_from_shape": tensors(one("F32", "[2]", "[0,4]"), b"abcd"),
        "shared_bytes": tensors(two((0, 2), (0, 2)), b"ab"),
        "overlap": tensors(two((0, 2), (1, 3)), b"abc"),
        "hole": tensors(two((0, 1), (2, 3)), b"abc"),
        "trailing_bytes": tensors(one(), b"ab"),
        "truncated_data": tensors(one(shape="[9]", offsets="[0,9]"), b"abcdefg"),
        "unknown_dtype": tensors(one("F4"), b"a"),
        "rank_9": tensors(one(shape="[1,1,1,1,1,1,1,1,1]"), b"a"),
        "name_nul": tensors(one(name="a\\u0000b"), b"a"),
        "name_newline": tensors(one(name="a\\nb"), b"a"),
        "name_escape": tensors(one(name="\\u001b[31m"), b"a"),
        "name_lone_surrogate": tensors(one(name="\\ud800"), b"a"),
        "git_lfs_pointer": "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n",
        "zip": b"PK\3\4" + bytes(20),
    },
)

write(
    "json",
    {
        "accepted_config": json.dumps({"a": [1, 2.5, None, True], "b": {"c": "\u00e9"}}, ensure_ascii=False),
        "accepted_bom": b"\xef\xbb\xbf{}",
        "accepted_nonfinite": '{"a":NaN,"b":[Infinity,-Infinity]}',
        "accepted_nonfinite_object": '{"a":{"__float__":"Infinity"}}',
        "accepted_model_max_length": '{"model_max_length": 1000000000000000019884624838656}',
        "accepted_big_negative": "[-99999999999999999999,-9223372036854775808]",
        "accepted_lone_surrogates": r'["\ud800","\udc00x","\ud800\ud800\udc00"]',
        "accepted_nul_in_key": r'{"a\u0000b":"\u0000"}',
        "accepted_reals": "[1e308,5e-324,0.1,-0.0,1E+2,5.684341886080802e-14]",
        "accepted_depth": "[" * 512 + "]" * 512,
        "accepted_scalar": '"x"',
        "empty": "",
        "blank": " \n",
        "truncated": '{"a":[1,',
        "truncated_escape": '"\\',
        "truncated_unicode": '"\\ud8',
        "utf16": '{"a":1}'.encode("utf-16"),
        "utf16_no_bom": '{"a":1}'.encode("utf-16-le"),
        "deep": "[" * 3000,
        "deep_nonfinite": "[" * 512 + "NaN" + "]" * 512,
        "duplicate_keys": '{"a":1,"a":2}',
        "duplicate_by_nul": r'{"a\u0000":1,"a\ufffd":2}',
        "nul_after": b"{}\0{}",
        "number_overflow": "[1e400]",
        "number_at_end": "123456789012345678901234567890",
        "number_leading_zero": "[01]",
        "number_long": "[" + "9" * 3000 + "]",
        "minus_nan": "[-NaN]",
        "word": "[nul]",
        "invalid_utf8": b'["\xff"]',
        "surrogate_in_utf8": b'["\xed\xa0\x80"]',
        "control_character": b'["\x01"]',
        "comment": "/* */{}",
        "git_lfs_pointer": "version https://git-lfs.github.com/spec/v1\n",
    },
)

JSONL, JSON, TEXT, GZIP, ZSTD = (bytes([i]) for i in range(5))
rows = b'{"a":1}\r\n\n{"b":[2]}\n'
packed = gzip.compress(rows, mtime=0)
# One raw block in a frame without checksum: what `zstd` makes of very little.
frame = bytes.fromhex("28b52ffd20") + bytes([len(rows), 1 | len(rows) << 3, 0, 0]) + rows
write(
    "jsonl",
    {
        "accepted_lines": JSONL + rows,
        "accepted_bom": JSONL + b"\xef\xbb\xbf{}",
        "accepted_array": JSON + b'[{"a":1},{}]',
        "accepted_json_lines": JSON + rows,
        "accepted_text": TEXT + b"words\n",
        "accepted_gzip": GZIP + packed,
        "accepted_gzip_members": GZIP + packed + packed,
        "accepted_zstd": ZSTD + frame,
        "accepted_zstd_frames": ZSTD + frame + frame,
        "empty_lines": JSONL,
        "empty_array": JSON + b"[]",
        "empty_text": TEXT,
        "empty_gzip": GZIP,
        "blank_lines": JSONL + b"\n \r\n",
        "truncated_line": JSONL + b'{}\n{"a":',
        "truncated_array": JSON + b'[{"a":1},',
        "gzip_cut": GZIP + packed[:-9],
        "gzip_flipped": GZIP + packed[:12] + b"\xaa" + packed[13:],
        "gzip_bad_length": GZIP + packed[:-1] + b"\x01",
        "gzip_then_garbage": GZIP + packed + b"garbage",
        "zstd_cut": ZSTD + frame[:-4],
        "zstd_window_too_large": ZSTD + bytes.fromhex("28b52ffd00f8") + bytes(8),
        "zstd_skippable": ZSTD + bytes.fromhex("502a4d18ffffffff"),
        "not_packed": ZSTD + rows,
        "invalid_utf8": JSONL + b'{"a":"\xff"}',
        "invalid_utf8_text": TEXT + b"a\xc3(",
        "utf16_text": TEXT + "words".encode("utf-16"),
        "line_is_array": JSONL + b"[1]\n",
        "element_is_number": JSON + b"[{},1]",
        "object_over_lines": JSON + b'{\n"a":\n1}',
        "duplicate_keys": JSONL + b'{"a":1,"a":2}',
        "deep": JSONL + b"[" * 2000,
        "git_lfs_pointer": JSONL + b"version https://git-lfs.github.com/spec/v1\n",
        "parquet": JSONL + b"PAR1\n",
    },
)

write(
    "yaml",
    {
        "accepted": "model: base\nlora:\n  r: 8\n  target_modules: [q_proj, 'v']\nx: null\ny:\n",
        "accepted_anchor": "a: &x [1, 2]\nb: *x\n",
        "accepted_block": "a: |\n  two\n  lines\nb: >-\n  folded\n",
        "accepted_empty": "# nothing\n",
        "accepted_crlf": b"\xef\xbb\xbfa: 1\r\nb: 2\r\n",
        "duplicate": "a: 1\na: 2\n",
        "duplicate_dotted": "a.b: 1\na:\n  b: 2\n",
        "documents": "a: 1\n---\nb: 2\n",
        "root_list": "- a\n",
        "nested_list": "a:\n  - [1]\n",
        "empty_list": "a: []\n",
        "key_list": "? [a]\n: 1\n",
        "merge": "x: &x {a: 1}\ny:\n  <<: *x\n",
        "tag": "a: !!python/object:os.system x\n",
        "nul": 'a: "x\\0y"\n',
        "alias_of_nothing": "a: *b\n",
        "alias_circle": "a: &a {b: *a}\n",
        "alias_circle_list": "a: &a [*a]\n",
        "alias_key": "a: &k b\n*k : 1\n",
        "deep_flow": "a: " + "[" * 200,
        "deep_mapping": "a: " + "{a: " * 200,
        "tab": "a: 1\n\tb: 2\n",
        "open_quote": 'a: "open\n',
        "invalid_utf8": b"a: \xff\n",
        "directive": "%YAML 9.9\n---\na: 1\n",
        "explicit_empty": "? \n: \n",
        "only_dashes": "---\n---\n",
    },
)
