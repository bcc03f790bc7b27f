"""Writes corpus/template: templates, some with a conversation behind a NUL byte."""

import json
import pathlib

HERE = pathlib.Path(__file__).parent / "corpus" / "template"

TEMPLATES = {
    "chatml": "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}"
              "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
    "generation": "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}",
    "thinking": "{%- set ns = namespace(i=messages|length - 1) %}{%- for m in messages[::-1] %}{% set i = ns.i - loop.index0 %}"
                "{% endfor %}{% for m in messages %}{{ m.content.split('</think>')[-1].lstrip('\\n') }}{% endfor %}",
    "tools": "{% for t in tools %}{{ t|tojson(indent=4) }}{% endfor %}{% for m in messages %}{% for c in m.tool_calls %}"
             "{{ c.function.name }}{{ c.function.arguments|tojson }}{% endfor %}{% endfor %}",
    "macros": "{% macro m(a, b=2) %}{{ a }}{{ b }}{{ varargs }}{{ kwargs }}{{ caller(1) }}{% endmacro %}{% call(x) m(1, 2, 3, q=4) %}{{ x }}{% endcall %}",
    "recursive_loop": "{% for x in [1, [2, [3]]] recursive %}{{ loop(x) if x is iterable else x }}{% endfor %}",
    "recursive_macro": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "white_space": "  {%- if n -%}  a  {%+ endif +%}\n  {# c -#}  {% raw -%} {{ {% endraw %}\n {{- n -}} \n",
    "strings": "{{ 'a\\n\\x41\\u00e9' 'b' ~ \"c\" }}{{ 'é'[0] }}{{ 'abc'[::-1] }}{{ 'a,b'.split(',')|join('-')|upper|center(9) }}",
    "formats": "{{ '%5.2f|%-4s|%(a)s' % (x, 'a') if false }}{{ '%d %s' % (n, l) }}{{ '{:>8}{0!r:^{1}}'.format('a', 9) if 0 }}{{ '{:,}'.format(1234567) }}",
    "numbers": "{{ 7 // -2 }}{{ -7 % 3 }}{{ 2 ** 62 }}{{ 1e308 * 10 }}{{ 0x1f }}{{ 1_000 }}{{ x|round(1)|int }}",
    "sequences": "{{ l|sort|batch(2, 0)|list }}{{ l|slice(2)|list }}{{ l|map('string')|join }}{{ l|select('odd')|list }}{{ messages|groupby('role') }}",
    "dicts": "{% for k, v in messages[0]|dictsort %}{{ k }}{% endfor %}{{ {'a': 1, 2: [3], (4, 5): none}.items()|list }}{{ messages[0].get('q', 1) }}",
    "big_range": "{% for i in range(1000000000) %}{% endfor %}",
    "nested_ranges": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "repeated_text": "{{ 'x' * 1000000000 }}",
    "doubled_text": "{% set ns = namespace(s='x') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
    "doubled_list": "{% set ns = namespace(s=[]) %}{% for i in range(60) %}{% set ns.s = [ns.s, ns.s] %}{% endfor %}{{ ns.s }}",
    "deep_list": "{% set ns = namespace(s=[]) %}{% for i in range(9999) %}{% set ns.s = [ns.s] %}{% endfor %}{{ ns.s|tojson }}",
    "deep_parentheses": "{{ " + "(" * 5000,
    "deep_blocks": "{% if 1 %}" * 5000,
    "deep_unary": "{{ " + "- " * 5000 + "1 }}",
    "long_chain": "{{ 1" + " + 1" * 3000 + " }}",
    "hidden": "{{ ''.__class__.__mro__ }}{{ messages.append(1) }}",
    "not_closed": "{% if a %}{{ 'b",
    "comment_not_closed": "{# a",
    "raw_not_closed": "{% raw %}a{% endraw",
    "invalid_utf8": b"{{ '\xff' }}",
    "empty": "",
}

CONVERSATIONS = {
    "parts": {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image"}]}]},
    "empty_conversation": {"messages": []},
    "no_objects": {"messages": [1, None]},
    "null_content": {"messages": [{"role": "assistant", "content": None, "reasoning": "r"}]},
    "assistants": {"messages": [{"role": "assistant", "content": ""}, {"role": "assistant", "content": "<|im_end|>"}]},
    "nul": {"messages": [{"role": "user", "content": "a\u0000b"}]},
}


def main():
    HERE.mkdir(parents=True, exist_ok=True)
    for name, source in TEMPLATES.items():
        (HERE / name).write_bytes(source if isinstance(source, bytes) else source.encode())
    for name, conversation in CONVERSATIONS.items():
        (HERE / f"conversation_{name}").write_bytes(TEMPLATES["chatml"].encode() + b"\0" + json.dumps(conversation).encode())


main()
