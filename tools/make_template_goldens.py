#!/usr/bin/env python3
"""Makes tests/golden/chat_template: what transformers renders, feature by feature and in templates of our own in the
style of the model families; and the seeds of the template fuzzer.

  python3 -m venv ~/.cache/templates && ~/.cache/templates/bin/pip install transformers==5.23.0 jinja2==3.1.6
  ~/.cache/templates/bin/python tools/make_template_goldens.py
"""
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import compare_chat_templates as compare

ROOT = pathlib.Path(__file__).resolve().parent.parent
OUT = ROOT / "tests/golden/chat_template"
SEEDS = ROOT / "tests/fuzz/corpus/template"

VARIABLES = {
    "messages": [], "text": "The quick brown fox", "padded": "  \tspaced out \n", "unicode": "Grüße ΣΑΣ ß ﬁ 日本 👩‍👧 İ",
    "lines": "one\ntwo\n\nthree\r\nfour", "empty": "", "number": 42, "negative": -7, "real": 2.5, "tiny": 1e-7, "huge": 1e16,
    "big": 18446744073709551615, "yes": True, "no": False, "nothing": None,
    "list": [3, 1, 2], "words": ["pear", "Apple", "fig", "apple"], "mixed": [1, "a", None, True, 2.0, [1], {"k": "v"}],
    "dict": {"b": 2, "a": 1, "C": 3}, "nested": {"x": {"y": [{"z": "deep"}]}, "items": "key", "get": 1},
    "people": [{"name": "Bo", "age": 3, "tags": ["x"]}, {"name": "al", "age": 1}, {"name": "Cy", "age": 2, "tags": []}],
    "quotes": "it's \"quoted\" \\ back\u0007\u00a0\u200b", "html": "<a href=\"x\">&'</a>",
}

# One line each, so that a failure names the feature.
FEATURES = r"""
{{ 1 }} {{ -1 }} {{ +1 }} {{ 1_000 }} {{ 0x1F }} {{ 0b11 }} {{ 0o17 }} {{ 1.5e3 }} {{ 1e100 }} {{ 1.0 }} {{ 0.1 + 0.2 }}
{{ tiny }} {{ huge }} {{ big }} {{ big + 1 }} {{ 123456789.123 }} {{ 1e15 }} {{ 1e-4 }} {{ 0.00001 }} {{ -0.0 }} {{ 5e-324 }}
{{ true }} {{ false }} {{ none }} {{ True }} {{ None }} {{ nothing }} {{ missing }} {{ [missing] }}
{{ 7 / 2 }} {{ 7 // 2 }} {{ -7 // 2 }} {{ 7 % 3 }} {{ -7 % 3 }} {{ 7.5 % 2 }} {{ -7.5 // 2 }} {{ 2 ** 10 }} {{ 2 ** -1 }} {{ 2 ** 3 ** 2 }} {{ -2 ** 2 }}
{{ 1 + 2 * 3 - 4 / 2 }} {{ (1 + 2) * 3 }} {{ true + true }} {{ 10 - 2 - 3 }} {{ 2.0 * 3 }} {{ 1 ~ 2 + 3 }} {{ 2 * 3 ~ 4 }}
{{ 1 / 0 }}
{{ 1 % 0 }}
{{ 'a' + 1 }}
{{ 1 + 'a' }}
{{ 'a' * 3 }} {{ [1] * 2 }} {{ 2 * (1, 2) }} {{ 'a' * -1 }}
{{ 'a' ~ 1 ~ none ~ true ~ 1.0 ~ [1, 'x'] ~ missing }}
{{ 1 < 2 }} {{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 1 == 1.0 }} {{ 1 == true }} {{ 'a' < 'b' }} {{ [1, 2] < [1, 3] }} {{ (1, 2) == (1, 2) }} {{ {'a': 1} == {'a': 1.0} }} {{ 1 != 2 }} {{ 'Z' < 'a' }} {{ 'é' > 'z' }}
{{ 1 < 'a' }}
{{ missing < 1 }}
{{ missing == missing }} {{ missing == none }} {{ none == none }}
{{ 'ell' in 'hello' }} {{ 'x' not in 'hello' }} {{ 1 in [1, 2] }} {{ 'a' in dict }} {{ 2 in dict.values() }} {{ 'a' in missing }} {{ ('a', 1) in dict.items() }}
{{ 1 in 'abc' }}
{{ 1 in 5 }}
{{ not true }} {{ not '' }} {{ 1 and 2 }} {{ 0 and 2 }} {{ 0 or 'x' }} {{ '' or none }} {{ not 1 == 2 }} {{ true and not false or false }}
{{ 'yes' if yes else 'no' }} {{ 'yes' if no }} {{ 'a' if no else 'b' if no else 'c' }} {{ ('x' if no) is defined }}
{{ [1, 'two', none, true, 3.0, [4], {'five': 5}, (6,), ()] }} {{ {} }} {{ {'a': 1, 2: 'b', none: true, (1, 2): 'x'} }} {{ (1, 2) }} {{ 1, 2 }} {{ [1, 2,] }} {{ {'a': 1,} }}
{{ {'a': 1, 'a': 2} }} {{ {1: 'a', true: 'b', 1.0: 'c'} }}
{{ {[1]: 2} }}
{{ mixed }} {{ dict }} {{ people }} {{ quotes }} {{ [quotes] }} {{ [unicode] }} {{ [lines] }}
{{ dict.a }} {{ dict['a'] }} {{ dict.missing }} {{ dict.items() }} {{ dict.keys() }} {{ dict.values() }} {{ nested.items is callable }} {{ nested['items'] }} {{ nested.x.y[0].z }} {{ nested['get'] }}
{{ dict.missing.more }}
{{ missing.more }}
{{ missing['more'] }}
{{ nothing.more }} {{ nothing['more'] }}
{{ nothing.more.less }}
{{ nothing[1:] }}
{{ dict[1:] }}
{{ dict.get('a') }} {{ dict.get('x') }} {{ dict.get('x', 'default') }} {{ dict.get('x') is none }}
{{ list[0] }} {{ list[-1] }} {{ list[5] }} {{ list['0'] }} {{ text[0] }} {{ text[-1] }} {{ text[99] }} {{ unicode[2] }} {{ unicode[-1] }} {{ list.0 }} {{ people.1.name }} {{ list[true] }}
{{ list[5].x }}
{{ list[1:] }} {{ list[:-1] }} {{ list[::-1] }} {{ list[::2] }} {{ list[5:] }} {{ list[-2:] }} {{ text[4:9] }} {{ text[::-1] }} {{ unicode[1:8:2] }} {{ unicode[::-1] }} {{ text[-3:] }} {{ (1, 2, 3)[1:] }} {{ text[9:4] }} {{ list[none:2] }} {{ range(10)[2:8:3] }}
{{ list[::0] }}
{{ list['a':] }}
{{ text.upper() }} {{ text.lower() }} {{ text.title() }} {{ text.swapcase() }} {{ text.capitalize() }} {{ unicode.upper() }} {{ unicode.lower() }} {{ unicode.title() }} {{ unicode.capitalize() }} {{ unicode.casefold() }} {{ "they're bill's".title() }}
[{{ padded.strip() }}] [{{ padded.lstrip() }}] [{{ padded.rstrip() }}] [{{ 'xxaxx'.strip('x') }}] [{{ 'abcba'.strip('ab') }}] [{{ '«é»'.strip('«»') }}] [{{ padded.strip(none) }}]
{{ text.split() }} {{ text.split(' ') }} {{ text.split(' ', 1) }} {{ text.rsplit(' ', 1) }} {{ ' a  b '.split() }} {{ ' a  b '.split(' ') }} {{ 'a,b,,c'.split(',') }} {{ 'a--b--c'.rsplit('--', 1) }} {{ ''.split() }} {{ ''.split(',') }} {{ ' a b c '.split(none, 1) }} {{ ' a b c '.rsplit(none, 1) }} {{ text.split(maxsplit=2) }} {{ 'aaa'.rsplit('aa') }} {{ 'aaa'.split('aa') }}
{{ text.split('') }}
{{ lines.splitlines() }} {{ lines.splitlines(true) }} {{ 'a\x0bb\x1cc\u2028d'.splitlines() }}
{{ 'a=b=c'.partition('=') }} {{ 'a=b=c'.rpartition('=') }} {{ 'abc'.partition('=') }} {{ 'abc'.rpartition('=') }}
{{ text.startswith('The') }} {{ text.endswith('fox') }} {{ text.startswith(('A', 'T')) }} {{ text.startswith('quick', 4) }} {{ text.endswith('quick', 0, 9) }} {{ ''.startswith('') }} {{ text.startswith('') }}
{{ text.replace('quick', 'slow') }} {{ 'aaaa'.replace('a', 'b', 2) }} {{ 'abc'.replace('', '-') }} {{ 'abc'.replace('', '-', 2) }} {{ ''.replace('', 'x') }} {{ 'é'.replace('', '.') }}
{{ text.find('quick') }} {{ text.find('x', 0, 3) }} {{ text.rfind('o') }} {{ text.index('b') }} {{ unicode.find('日') }} {{ text.count('o') }} {{ 'aaaa'.count('aa') }} {{ 'abc'.count('') }} {{ text.find('') }} {{ text.rfind('') }}
{{ text.index('zzz') }}
{{ ', '.join(['a', 'b']) }} {{ ''.join('abc') }} {{ '-'.join({'x': 1, 'y': 2}) }}
{{ ', '.join([1]) }}
{{ 'ab'.center(7, '*') }} {{ 'abc'.center(6, '*') }} {{ 'ab'.ljust(5, '.') }} {{ 'ab'.rjust(5) }} {{ '-42'.zfill(6) }} {{ 'a\tb'.expandtabs(4) }} {{ 'abc'.removeprefix('a') }} {{ 'abc'.removesuffix('c') }}
{{ 'abc'.isalpha() }} {{ '123'.isdigit() }} {{ '²'.isdigit() }} {{ '²'.isdecimal() }} {{ '½'.isnumeric() }} {{ 'a1'.isalnum() }} {{ ' '.isspace() }} {{ ''.isspace() }} {{ 'ab'.islower() }} {{ 'AB1'.isupper() }} {{ 'Ab Cd'.istitle() }} {{ 'a_1'.isidentifier() }} {{ 'é'.isascii() }} {{ '\n'.isprintable() }} {{ '1'.isupper() }}
{{ '{} {}'.format(1, 'a') }} {{ '{1} {0}'.format(1, 2) }} {{ '{a}'.format(a=1) }} {{ '{0[k]} {0[k].z}'.format({'k': {'z': 9}}) }} {{ '{:>5}|{:<5}|{:^5}|{:*^5}'.format('a', 'b', 'c', 'd') }} {{ '{:05d} {:+d} {:x} {:#X} {:b} {:,}'.format(42, 42, 255, 255, 5, 1234567) }} {{ '{:.2f} {:8.3f} {:e} {:g} {:%} {}'.format(3.14159, 2.5, 12345.678, 0.0001, 0.25, 1.0) }} {{ '{!r} {!s}'.format('a', 'b') }} {{ '{{}}'.format() }} {{ '{:{}}'.format('a', 3) }}|
{{ '{}'.format() }}
{{ '{' .format() }}
{{ '%s %d %5.2f|%-5s|%05d %x %% %r %c' % ('a', 42, 3.14159, 'b', 42, 255, 'q', 'z') }} {{ '%s' % 1 }} {{ '%(a)s-%(b)d' % {'a': 1, 'b': 2} }} {{ '%s' % [1, 2] }} {{ '%e %g' % (12345.678, 1e-5) }} {{ '%+d % d %#x' % (1, 2, 255) }} {{ '%*d' % (5, 42) }} {{ '%.3s' % 'abcdef' }} {{ '%s' % missing }}
{{ '%s %s' % 'a' }}
{{ '%d' % 'a' }}
{{ '%s' % ('a', 'b') }}
{{ [1, 2, 1].count(1) }} {{ [1, 2].index(2) }} {{ (1, 2).index(1) }} {{ dict.copy() }}
{{ list.append(4) }}
{{ dict.update({}) }}
{{ dict.pop }}
{{ text.__class__ }}|{{ dict._private }}|
{{ text.__class__.__mro__ }}
{{ text() }}
{{ missing() }}
{{ text.nope() }}
{{ missing is defined }} {{ text is defined }} {{ missing is undefined }} {{ nothing is none }} {{ nothing is not none }} {{ text is string }} {{ number is number }} {{ real is number }} {{ yes is number }} {{ dict is mapping }} {{ list is mapping }} {{ dict.missing is defined }}
{{ list is iterable }} {{ text is iterable }} {{ dict is iterable }} {{ number is iterable }} {{ missing is iterable }} {{ list is sequence }} {{ text is sequence }} {{ dict is sequence }} {{ number is sequence }} {{ list|map('string') is sequence }} {{ nothing is iterable }} {{ dict.items() is sequence }}
{{ number is integer }} {{ real is integer }} {{ yes is integer }} {{ real is float }} {{ yes is boolean }} {{ 1 is boolean }} {{ yes is true }} {{ 1 is true }} {{ no is false }} {{ 0 is false }}
{{ 3 is odd }} {{ 4 is even }} {{ 9 is divisibleby 3 }} {{ 9 is divisibleby(2) }} {{ 1 is eq 1 }} {{ 1 is equalto 1.0 }} {{ 1 is ne 2 }} {{ 1 is lt 2 }} {{ 2 is gt(1) }} {{ 1 is in [1] }} {{ 'a' is in 'abc' }} {{ 1 is le 1 }} {{ 1 is ge 2 }} {{ 'a' is sameas 'a' }} {{ none is sameas none }}
{{ 'abc' is lower }} {{ 'ABC' is upper }} {{ 'upper' is filter }} {{ 'nope' is filter }} {{ 'odd' is test }} {{ range is callable }} {{ text is callable }} {{ text is not string and true }} {{ 'x'|escape is escaped }}
{{ text|upper }} {{ text|lower }} {{ 'hello wORLD-foo (bar)'|title }} {{ 'HELLO'|capitalize }} {{ number|string + 'x' }} {{ 5|upper }} {{ unicode|title }} {{ none|lower }}
[{{ padded|trim }}] [{{ 'xax'|trim('x') }}] [{{ 5|trim }}] [{{ missing|trim }}]
{{ text|length }} {{ unicode|length }} {{ list|length }} {{ dict|count }} {{ missing|length }} {{ ''|length }} {{ range(5)|length }}
{{ number|length }}
{{ list|map('string')|length }}
{{ missing|default('d') }} {{ ''|default('d') }} {{ ''|default('d', true) }} {{ none|default('d') }} {{ none|d('d', boolean=true) }} {{ missing|default }}| {{ 0|default(1, true) }} {{ dict.x|default('e') }}
{{ list|first }} {{ list|last }} {{ []|first }}| {{ text|first }} {{ text|last }} {{ dict|first }} {{ dict|last }}
{{ list|join }} {{ list|join(', ') }} {{ people|join(', ', attribute='name') }} {{ text|join('.') }} {{ dict|join('-') }} {{ [1, none, true, 'x']|join(' ') }} {{ []|join(',') }}|
{{ list|sort }} {{ list|sort(reverse=true) }} {{ words|sort }} {{ words|sort(case_sensitive=true) }} {{ people|sort(attribute='age')|map(attribute='name')|list }} {{ people|sort(attribute='name,age')|map(attribute='name')|join }} {{ [(2, 'b'), (1, 'c'), (2, 'a')]|sort }} {{ dict|sort }}
{{ mixed|sort }}
{{ dict|dictsort }} {{ dict|dictsort(true) }} {{ dict|dictsort(false, 'value') }} {{ dict|dictsort(reverse=true) }} {{ dict|dictsort(by='value', reverse=true) }}
{{ dict|items|list }} {{ missing|items|list }}
{{ list|items|list }}
{{ words|unique|list }} {{ words|unique(true)|list }} {{ [1, 1.0, true, 2]|unique|list }} {{ people|unique(attribute='age')|list|length }}
{{ list|reverse|list }} {{ text|reverse }} {{ unicode|reverse }} {{ range(3)|reverse|list }} {{ dict|reverse|list }}
{{ list|min }} {{ list|max }} {{ words|min }} {{ words|max }} {{ []|min }}| {{ people|max(attribute='age') }} {{ list|sum }} {{ people|sum(attribute='age') }} {{ [1.5, 2]|sum }} {{ list|sum(start=10) }} {{ [[1], [2]]|sum(start=[]) }} {{ []|sum }}
{{ ['a']|sum }}
{{ people|map(attribute='name')|list }} {{ people|map(attribute='tags.0', default='none')|list }} {{ words|map('upper')|list }} {{ words|map('replace', 'a', 'b')|list }} {{ list|map('string')|join('+') }} {{ missing|map('upper')|list }} {{ people|map(attribute='nope')|list }} {{ words|map('length')|sum }}
{{ words|map('nope')|list }}
{{ list|select('odd')|list }} {{ list|reject('odd')|list }} {{ list|select('gt', 1)|list }} {{ mixed|select|list }} {{ mixed|reject|list }} {{ words|select('in', ['fig'])|list }} {{ words|reject('equalto', 'fig')|list }} {{ list|select('divisibleby', 3)|list }}
{{ people|selectattr('tags')|map(attribute='name')|list }} {{ people|selectattr('age', 'gt', 1)|map(attribute='name')|list }} {{ people|rejectattr('tags', 'defined')|map(attribute='name')|list }} {{ people|selectattr('name', '==', 'Bo')|list|length }} {{ people|rejectattr('age', 'in', [1, 2])|map(attribute='name')|first }}
{{ people|groupby('age') }} {{ words|groupby(0)|list }} {% for k, v in people|groupby('age') %}{{ k }}:{{ v|length }} {% endfor %}
{{ [1, 2, 3, 4, 5]|batch(2)|list }} {{ [1, 2, 3]|batch(2, 'x')|list }} {{ [1, 2, 3, 4, 5]|slice(2)|list }} {{ [1, 2, 3]|slice(2, 'x')|list }}
{{ '42'|int }} {{ ' 42 '|int }} {{ '4.7'|int }} {{ 'x'|int }} {{ 'x'|int(7) }} {{ 'ff'|int(0, 16) }} {{ '0x1A'|int(base=16) }} {{ 4.7|int }} {{ -4.7|int }} {{ true|int }} {{ none|int }} {{ '1_000'|int }} {{ '1e3'|int }} {{ ''|int }} {{ 'inf'|int }}
{{ missing|int }}
{{ '4.5'|float }} {{ 'x'|float }} {{ 'x'|float(1.5) }} {{ 4|float }} {{ '1e3'|float }} {{ 'inf'|float }} {{ '-nan'|float }} {{ '1_0'|float }} {{ '.5'|float }} {{ none|float }} {{ true|float }}
{{ -5|abs }} {{ (-5)|abs }} {{ (-2.5)|abs }} {{ 42.55|round }} {{ 42.55|round(1) }} {{ 42.55|round(1, 'floor') }} {{ 42.51|round(1, 'ceil') }} {{ 42|round }} {{ 2.5|round }} {{ 3.5|round }} {{ 1234|round(-2) }} {{ 1250|round(-2) }} {{ 2.675|round(2) }} {{ 42.4|round|int }} {{ 1234.5|round(-2) }}
{{ text|replace('o', '0') }} {{ text|replace('o', '0', 1) }} {{ 505|replace(5, 6) }} {{ text|wordcount }} {{ "a-b c_d é1"|wordcount }} {{ 'ab'|center(6) }}| {{ '%s-%s'|format(1, 2) }} {{ '%(a)s'|format(a=1) }} {{ text|truncate(9) }} {{ text|truncate(9, true, '', 0) }} {{ text|urlencode }} {{ {'a b': 1, 'c': '/é'}|urlencode }}
{{ lines|indent }} {{ lines|indent(2, true) }} {{ lines|indent('> ', blank=true) }} {{ lines|indent(width=1, first=true) }}
{{ html|e }} {{ html|escape|e }} {{ html|forceescape }} {{ html|safe }} {{ '<b>'|safe + '<i>' }} {{ '<i>' + '<b>'|safe }} {{ '<b>'|safe ~ '<i>' }} {{ ('<b>%s'|safe) % '<i>' }} {{ ('<b>{}'|safe).format('<i>') }} {{ ('<b>'|safe).join(['<i>', '<u>']) }} {{ ['<b>'|safe] }} {{ '<b>'|safe|upper + '<' }} {{ (html|safe)|replace('<', '[') }} {{ '<'|safe == '<' }}
{{ mixed|tojson }} {{ dict|tojson }} {{ unicode|tojson }} {{ quotes|tojson }} {{ html|tojson }} {{ lines|tojson }} {{ [1.0, 1e16, 0.1, -0.0, 1e-7]|tojson }} {{ (1, 2)|tojson }} {{ none|tojson }} {{ {1: 2, none: 3, true: 4, 1.5: 5}|tojson }} {{ '\x7f\x1f/'|tojson }} {{ big|tojson }} {{ {}|tojson }} {{ []|tojson }}
{{ nested|tojson(indent=2) }}
{{ mixed|tojson(indent=4) }} {{ []|tojson(indent=4) }} {{ {'a': {}}|tojson(indent=1) }} {{ [[]]|tojson(indent='--') }} {{ [1]|tojson(indent=0) }}
{{ dict|tojson(sort_keys=true) }} {{ dict|tojson(separators=(',', ':')) }} {{ unicode|tojson(ensure_ascii=true) }} {{ dict|tojson(indent=2, sort_keys=true, separators=(', ', ' = ')) }} {{ dict|tojson(true) }}
{{ missing|tojson }}
{{ range|tojson }}
{{ {(1, 2): 3}|tojson }}
{{ list|nope }}
{{ list is nope }}
{% if no %}{{ list|nope }}{% endif %}{{ 'x' if yes else list|nope }}ok
{% if yes %}{{ list|nope }}{% endif %}
{% for x in list %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.depth }}{{ loop.cycle('a', 'b') }}{{ loop.changed(x) }} {% endfor %}
{% for k, v in dict.items() %}{{ k }}={{ v }}{{ ', ' if not loop.last }}{% endfor %} {% for k in dict %}{{ k }}{% endfor %} {% for k, (a, b) in [(1, (2, 3))] %}{{ k }}{{ a }}{{ b }}{% endfor %}
{% for x in [] %}{{ x }}{% else %}empty{% endfor %} {% for x in list %}{{ x }}{% else %}empty{% endfor %} {% for x in missing %}{{ x }}{% else %}none{% endfor %}
{% for x in list if x > 1 %}{{ x }}{{ loop.index }}{{ loop.last }}{{ loop.length }} {% else %}empty{% endfor %} {% for x in list if x > 9 %}{{ x }}{% else %}empty{% endfor %} {% for x in range(5) if x is odd %}{{ loop.previtem }}{{ x }}{{ loop.nextitem }} {% endfor %}
{% for x in range(10) %}{% if x == 2 %}{% continue %}{% endif %}{% if x > 4 %}{% break %}{% endif %}{{ x }}{% endfor %} {% for x in [1] %}{% continue %}{% else %}else{% endfor %} {% for x in [1, 2] %}{% if x == 2 %}{% break %}{% endif %}{% else %}else{% endfor %}
{% for x in people|selectattr('tags')|map(attribute='name') %}{{ loop.first }}{{ x }}{{ loop.last }}{{ loop.length }} {% endfor %}
{% for x in 5 %}{% endfor %}
{% for a, b in [1] %}{% endfor %}
{% for a, b in [(1, 2, 3)] %}{% endfor %}
{% for a, b in ['x'] %}{% endfor %}
{% for node in [{'n': 1, 'c': [{'n': 2, 'c': [{'n': 3}]}]}] recursive %}{{ loop.depth }}{{ node.n }}[{{ loop(node.c) if node.c }}]{% endfor %}
{% for x in [1] %}{{ loop([2]) }}{% endfor %}
{% for x in [1, 2] %}{% for y in [3, 4] %}{{ loop.index }}{{ x }}{{ y }} {% endfor %}{{ loop.index }}{% endfor %}
{% set g = list|map('string') %}{{ g|list }}{{ g|list }} {% set g = words|select('in', 'pear fig') %}{{ 'fig' in g }}{{ g|list }}
{% set x = 1 %}{% for i in [1, 2] %}{{ x }}{% set x = x + i %}{{ x }} {% endfor %}{{ x }} {% if yes %}{% set x = 5 %}{% endif %}{{ x }}
{% set ns = namespace(a=1) %}{% for i in [1, 2] %}{% set ns.a = ns.a + i %}{% set ns.b = i %}{% endfor %}{{ ns.a }}{{ ns.b }}{{ ns.c }} {{ ns }} {{ namespace({'x': 1}, y=2) }} {{ ns is mapping }}
{% set ns = namespace() %}{% set ns._x = 1 %}
{% set dict.x = 1 %}
{% set a, b = 1, 2 %}{{ a }}{{ b }} {% set a, b = b, a %}{{ a }}{{ b }} {% set (c, d) = 'xy' %}{{ c }}{{ d }} {% set t = 1, %}{{ t }}
{% set a, b = [1] %}
{% set x %}  block {{ number }} {% endset %}[{{ x }}] {% set y | upper | trim %} abc {% endset %}[{{ y }}] {% set x %}{% set z = 1 %}{{ z }}{% endset %}{{ x }}{{ z }}
{% if number > 50 %}a{% elif number > 40 %}b{% else %}c{% endif %} {% if missing %}a{% endif %} {% if 0.0 or [] or {} or '' or none %}a{% else %}b{% endif %} {% if text, %}t{% endif %}
{% with a = 1, b = 2 %}{{ a }}{{ b }}{% endwith %}{{ a }} {% with %}{% set q = 1 %}{{ q }}{% endwith %}{{ q }} {% with number = number + 1 %}{{ number }}{% endwith %}{{ number }}
{% macro m(a, b=2, c='x') %}[{{ a }}{{ b }}{{ c }}]{% endmacro %}{{ m(1) }}{{ m(1, 3) }}{{ m(c=4, a=5) }}{{ m() }}{{ m(*[7, 8, 9]) }}{{ m(**{'a': 1, 'b': 0}) }} {{ m.name }}
{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}
{% macro m(a) %}{{ a }}{% endmacro %}{{ m(b=2) }}
{% macro m(a) %}{{ a }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, 3, x=4) }} {% macro n() %}{{ caller is defined }}{% endmacro %}{{ n() }}
{% macro box(t) %}<{{ t }}>{{ caller() }}</{{ t }}>{% endmacro %}{% call box('p') %}body {{ number }}{% endcall %} {% macro each(xs) %}{% for x in xs %}{{ caller(x, loop.index) }}{% endfor %}{% endmacro %}{% call(x, i) each(words) %}{{ i }}{{ x }} {% endcall %}
{% macro fact(n) %}{{ 1 if n < 2 else n * fact(n - 1)|int }}{% endmacro %}{{ fact(10) }} {% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}B{% endmacro %}{{ a() }}
{% macro deep(n) %}{{ deep(n + 1) }}{% endmacro %}{{ deep(0) }}
{% set x = 1 %}{% macro m() %}{{ x }}{% endmacro %}{{ m() }}{% set x = 2 %}{{ m() }} {% macro d(a, b=a) %}{{ b }}{% endmacro %}{{ d(3) }} {% for i in [1, 2] %}{% macro c() %}{{ i }}{% endmacro %}{{ c() }}{% endfor %}
{% filter upper %}shout {{ text }}{% endfilter %} {% filter replace('a', 'b')|trim %} banana {% endfilter %}
{% generation %}made {{ number }}{% endgeneration %} {% for x in list %}{% generation %}{{ x }}{% set q = x %}{% endgeneration %}{{ q }}{% endfor %}
{% raw %}{{ not }} {% this %} {# kept #}{% endraw %} {%- raw -%} x {%- endraw -%} y
{# comment #}a{#- strip -#} b {# {{ x }} {% y %} #}c
  {% if yes %}
    indented
  {% endif %}
after
a  {%- if yes -%}  b  {%- endif -%}  c
a  {{- number -}}  b {{ number -}}   c   {{- number }} d
  {%+ if yes %}plus{% endif %}  {% if yes +%}
kept newline{% endif %}
{{ 'a\nb\tc\\d\'e"f\x41\u00e9\U0001F600\101\q' }} {{ "it's" }} {{ 'a' 'b' }} {{ '
' }}
{{ range(5)|list }} {{ range(1, 4)|list }} {{ range(10, 0, -3)|list }} {{ range(3) }} {{ range(0)|list }} {{ 2 in range(3) }} {{ range(5)[-1] }}
{{ range(100001) }}
{{ range(1, 2, 0) }}
{{ dict(a=1, b=2) }} {{ dict }}
{{ strftime_now('%Y-%m-%d') }} {{ strftime_now('%d %b %Y') }} {{ strftime_now('%A, %B %-d %H:%M:%S %p %j %y %% %Z%z') }}
{{ raise_exception('Own words: é') }}
{{ raise_exception(5) }}
{% for x in [1] %}{{ raise_exception('in loop') }}{% endfor %}
{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.next() }}{{ c.current }} {% set j = joiner('|') %}{{ j() }}a{{ j() }}b{{ j() }}
{% print 1, 'a' %} {% set items = [] %}{{ items }} {% if not (yes and no) %}n{% endif %}
{{ text if text is string else text|join }} {{ (people|first).name }} {{ people[0]['tags'][0] }} {{ dict.items()|list|length }} {{ 'a' in ('a', 'b') }} {{ people|map(attribute='age')|sort|list }}
{% if %}{% endif %}
{% for x in %}{% endfor %}
{% endfor %}
{% if yes %}
{{ }}
{{ 1 +
{{ (1 }}
{{ 'unterminated }}
{% unknown %}
{% set 1 = 2 %}
{% set true = 2 %}
{% break %}
{% include 'x' %}
{% for loop in list %}{{ loop }}{% endfor %}
{{ a b }}
{{ f(a=1, 2) }}
{# open
{% raw %} open
{{ 1 if }}
{{ not }}
{{ x is defined is none }}
{{ @ }}
"""

# Templates of our own, each in the manner of a family.
FAMILIES = {
    "chatml": """{%- for message in messages -%}
    {%- if loop.first and message.role != 'system' -%}
        {{- '<|im_start|>system\\nYou are kind.<|im_end|>\\n' -}}
    {%- endif -%}
    {{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}
""",
    "headers": """{{- bos_token }}
{%- if not date is defined %}
    {%- set date = strftime_now("%d %b %Y") %}
{%- endif %}
{%- if messages and messages[0]['role'] == 'system' %}
    {%- set first = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set first = "" %}
{%- endif %}
{{- "<|header|>system<|/header|>\\n\\nToday: " + date + "\\n\\n" }}
{%- if tools is not none %}
    {{- "Functions:\\n" }}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\\n\\n" }}
    {%- endfor %}
{%- endif %}
{{- first + "<|eot|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'tool' or message.role == 'ipython' or 'tool_calls' in message) %}
        {{- '<|header|>' + message['role'] + '<|/header|>\\n\\n' + message['content'] | trim + '<|eot|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls | length == 1 %}
            {{- raise_exception("One call at a time!") }}
        {%- endif %}
        {%- set call = message.tool_calls[0].function %}
        {{- '<|header|>assistant<|/header|>\\n\\n{"name": "' + call.name + '", "parameters": ' }}
        {{- call.arguments | tojson }}
        {{- '}<|eot|>' }}
    {%- else %}
        {{- '<|header|>ipython<|/header|>\\n\\n' }}
        {%- if message.content is mapping or message.content is iterable %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- '<|eot|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|header|>assistant<|/header|>\\n\\n' }}
{%- endif %}
""",
    "thinking": """{%- macro text_of(content) %}
    {%- if content is string %}
        {{- content }}
    {%- elif content is iterable and content is not mapping %}
        {%- for part in content %}
            {%- if part.type == 'image' or 'image' in part %}
                {{- '<image>' }}
            {%- elif 'text' in part %}
                {{- part.text }}
            {%- endif %}
        {%- endfor %}
    {%- endif %}
{%- endmacro %}
{%- set ns = namespace(searching=true, last=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.searching and message.role == "user" and not text_of(message.content).startswith('<response>') %}
        {%- set ns.searching = false %}
        {%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- if tools %}
    {{- '# Tools\\n<tools>' }}
    {%- for tool in tools %}{{ '\\n' }}{{ tool | tojson }}{% endfor %}
    {{- '\\n</tools>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- set content = text_of(message.content) %}
    {%- if message.role == 'assistant' %}
        {%- set reasoning = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning = message.reasoning_content %}
        {%- elif '</think>' in content %}
            {%- set reasoning = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {{- '<|im_start|>assistant\\n' }}
        {%- if loop.index0 > ns.last and (loop.last or reasoning) %}
            {{- '<think>\\n' ~ reasoning.strip('\\n') ~ '\\n</think>\\n\\n' }}
        {%- endif %}
        {{- content }}
        {%- for call in message.tool_calls or [] %}
            {%- if (loop.first and content) or not loop.first %}{{- '\\n' }}{%- endif %}
            {%- if call.function %}{%- set call = call.function %}{%- endif %}
            {{- '<tool_call>\\n{"name": "' ~ call.name ~ '", "arguments": ' }}
            {{- call.arguments if call.arguments is string else call.arguments | tojson }}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == 'tool' %}
        {%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}{{- '<|im_start|>user' }}{%- endif %}
        {{- '\\n<response>\\n' ~ content ~ '\\n</response>' }}
        {%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{- '<|im_end|>\\n' }}{%- endif %}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}
{%- endif %}
""",
    "inst": """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}
{%- set ns = namespace(index=0) %}
{%- for message in loop_messages %}
    {%- if not (message.role == "tool" or (message.tool_calls is defined and message.tool_calls is not none)) %}
        {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
            {{- raise_exception("Roles must alternate user/assistant/user/assistant/...") }}
        {%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and (message == user_messages[-1]) %}
            {{- "[TOOLS][" }}
            {%- for tool in tools %}
                {%- set tool = tool.function %}
                {{- '{"type": "function", "function": {' }}
                {%- for key, val in tool.items() if key != "return" %}
                    {%- if val is string %}
                        {{- '"' + key + '": "' + val + '"' }}
                    {%- else %}
                        {{- '"' + key + '": ' + val|tojson }}
                    {%- endif %}
                    {%- if not loop.last %}{{- ", " }}{%- endif %}
                {%- endfor %}
                {{- "}}" }}
                {%- if not loop.last %}{{- ", " }}{%- else %}{{- "]" }}{%- endif %}
            {%- endfor %}
            {{- "[/TOOLS]" }}
        {%- endif %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST]" + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST]" + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message.tool_calls is defined and message.tool_calls is not none %}
        {{- "[CALLS][" }}
        {%- for call in message.tool_calls %}
            {%- set out = call.function|tojson %}
            {{- out[:-1] }}
            {%- if not call.id is defined or call.id|length != 9 %}
                {{- raise_exception("Call ids should be 9 characters long, not " ~ call.id|length) }}
            {%- endif %}
            {{- ', "id": "' + call.id + '"}' }}
            {%- if not loop.last %}{{- ", " }}{%- else %}{{- "]" + eos_token }}{%- endif %}
        {%- endfor %}
    {%- elif message["role"] == "assistant" %}
        {{- message["content"] + eos_token }}
    {%- elif message["role"] == "tool" %}
        {{- '[RESULT]{"content": ' + message.content|string + "}[/RESULT]" }}
    {%- else %}
        {{- raise_exception("Only user and assistant roles are supported!") }}
    {%- endif %}
{%- endfor %}
""",
    "types": """{%- macro type_of(spec) %}
    {%- set basic = {"string": "str", "number": "float", "integer": "int", "boolean": "bool"} %}
    {%- if basic[spec.type] is defined %}
        {{- basic[spec.type] }}
    {%- elif spec.type == "array" %}
        {{- "list" }}{%- if spec.items_ is defined or "items" in spec %}{{- "[" + type_of(spec["items"]) + "]" }}{%- endif %}
    {%- elif spec.type == "object" %}
        {{- "dict" }}
    {%- elif spec.type is iterable %}
        {{- "Union[" }}{% for t in spec.type %}{{ type_of({"type": t}) }}{{ "," if not loop.last }}{% endfor %}{{- "]" }}
    {%- else %}
        {{- "Any" }}
    {%- endif %}
{%- endmacro %}
{%- for tool in tools or [] %}
    {%- set f = tool.function if tool.function is defined else tool %}
    {{- f.name + "(" }}
    {%- for name, spec in f.parameters.properties|items %}
        {{- name + ": " + type_of(spec) }}
        {%- if name not in f.parameters.required|default([]) %}{{- " = " ~ spec.default|default(none) }}{%- endif %}
        {%- if not loop.last %}{{- ", " }}{%- endif %}
    {%- endfor %}
    {{- ")\\n" }}
    {{- f.description | indent(4, first=true) }}{{- "\\n" }}
{%- endfor %}
{%- for message in messages %}
<{{ message.role }}>
{{ message.content | default("", true) }}
{% endfor %}
{%- if documents %}
    {%- for document in documents %}
Document {{ loop.index }} of {{ loop.length }}: {{ document.title | upper }}
{{ document.text }}{{ "\\n" if not loop.last }}
    {%- endfor %}
{%- endif %}
""",
    "generation": """{% for m in messages %}
{% if m['role'] == 'assistant' %}
{{ 'A: ' }}{% generation %}{{ m['content'] }}{{ eos_token }}{% endgeneration %}

{% elif m['role'] == 'user' %}
{{ 'U: ' + m['content'] }}
{% endif %}
{% endfor %}
{% if add_generation_prompt %}A: {% endif %}
""",
}


def feature_sources():
    """Cases of one line, or of several where the next line starts with what cannot start one."""
    lines = FEATURES.strip("\n").split("\n")
    multi = {"  {% if yes %}": 4, "  {%+ if yes %}plus{% endif %}  {% if yes +%}": 2}
    at = 0
    while at < len(lines):
        count = multi.get(lines[at], 2 if lines[at].endswith("{{ '") else 1)
        yield "\n".join(lines[at:at + count])
        at += count


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    SEEDS.mkdir(parents=True, exist_ok=True)
    features = []
    for source in feature_sources():
        kind, expected = compare.reference(source, VARIABLES)
        features.append({"name": source, kind: expected})
    families = []
    for name, source in FAMILIES.items():
        for conversation, messages in compare.CONVERSATIONS.items():
            for tools in ({}, {"tools": compare.TOOLS}):
                variables = {"messages": messages, **compare.TOKENS, **tools}
                variables["add_generation_prompt"] = len(messages) % 2 == 1
                if conversation == "turns":
                    variables.update(documents=compare.DOCUMENTS, enable_thinking=False)
                kind, expected = compare.reference(source, variables)
                label = f"{name} {conversation}{' tools' if tools else ''}"
                families.append({"name": label, "family": name, "conversation": conversation, "tools": bool(tools),
                                 kind: expected})
    golden = {
        "now": compare.NOW, "variables": VARIABLES, "features": features, "templates": FAMILIES,
        "conversations": compare.CONVERSATIONS, "tools": compare.TOOLS, "documents": compare.DOCUMENTS,
        "tokens": compare.TOKENS, "families": families,
    }
    (OUT / "rendered.json").write_text(json.dumps(golden, ensure_ascii=True, indent=0) + "\n")
    for name, source in FAMILIES.items():
        (SEEDS / name).write_text(source)
    for index, item in enumerate(features):
        if "text" in item:
            seed = item["name"] + "\0" + json.dumps(VARIABLES, ensure_ascii=False)
            (SEEDS / f"feature{index:03}").write_text(item["name"] if index % 10 else seed)
    print(f"{len(features)} features, {len(families)} renderings of {len(FAMILIES)} templates")


if __name__ == "__main__":
    main()
