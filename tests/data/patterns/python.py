#!/usr/bin/env python3
"""Writes python.jsonl: what Python's own `re` says about patterns on bytes. One JSON array a line: the pattern,
the text with each byte as the character of its number, and whether `re.search` finds anything.

`\\B` on the empty text is left out: Python before 3.14 says no, which contradicts "not \\b"."""

import json
import random
import re
import warnings

warnings.simplefilter("ignore")
rng = random.Random(4)

HAND = [
    (r"^ab$", ["ab", "ab\n", "ab\n\n", "xab", "ab "]),
    (r"ab\Z", ["ab", "ab\n", "abc"]),
    (r"a$\n", ["a\n", "a", "a\n\n"]),
    (r"(?:a$|b)\s*c?", ["a\n", "b\n c", "a\nc", "x"]),
    (r"(?m)^ab$", ["x\nab\ny", "x ab", "ab", "ab\r\n"]),
    (r"(?s)a.b", ["a\nb", "a b", "ab"]),
    (r"a.b", ["a\nb", "a\rb"]),
    (r"(?i)wElcome", ["WELCOME", "welcome", "welcom"]),
    (r"(?i:AB)c", ["abc", "ABC", "Abc"]),
    (r"(?i)a(?-i:b)c", ["aBC", "AbC", "abc"]),
    (r"(?x) a b # comment ( " "\n" r" [ ] c \  d", ["ab c d", "ab cd", "ab  c d"]),
    (r"a{2}", ["a", "aa", "aaa"]), (r"a{,2}b", ["aaab", "b"]), (r"^a{,2}b", ["aaab", "aab"]),
    (r"a{2,}b", ["ab", "aab", "aaaaab"]), (r"a{b", ["a{b", "ab"]), (r"a{}", ["a{}", "a"]), (r"a{1,b}", ["a{1,b}", "a"]),
    (r"x{,}y", ["y", "xxy"]),
    (r"[]a]", ["]", "a", "b"]), (r"[^]a]", ["]", "a", "b"]), (r"[a-]", ["-", "a", "b"]), (r"[-a]", ["-", "b"]),
    (r"[\]\-\\]", ["]", "-", "\\", "x"]), (r"[\d.]+x", ["1.2x", "x"]), (r"[\b]", ["\b", "b"]), (r"[^\W_]", ["_", "-", "a"]),
    (r"\x41\101\0\07\n", ["AA\0\x07\n", "A"]), (r"[\x80-\xff]", ["\x80", "\x7f", "\xff"]),
    (r"\w+@\w+\.com", ["me@example.com", "@example.com"]), (r"(?P<year>\d{4})-(?:\d\d)", ["2026-11", "206-11"]),
    (r"a(?#comment)b", ["ab", "acb"]), (r"(?=.*you)(?!.*no).*me$", ["you and me", "no you and me", "you me\n", "me"]),
    (r"^(?=.*\d)(?=.*[a-z])(?=.*[A-Z]).{8,}$", ["Passw0rd", "password1", "PASSWORD1", "Short1a", "aB3aB3aB3\n"]),
    (r"^(?!.*\berror\b).*$", ["all fine", "an error here", "no errors"]),
    (r"(?<!\d)\d{3}(?!\d)", ["123", "1234", "a123b", "12 345 6"]),
    (r"(?<=\$)\d+(?:\.\d\d)?\b", ["$12.50", "12.50", "$x"]),
    (r"(?:(?!</div>).)*</div>", ["<b></div>", "<b>\n", "x</div"]),
    (r"\bfoo\b(?!bar)", ["foo", "foobar", "foo bar", "xfoo"]), (r"foo(?!\s*bar)\s*\w+", ["foo bar", "foo baz", "foo  barx"]),
    (r"", ["", "a"]), (r"()", [""]), (r"a|", ["b", ""]), (r"^$", ["", "\n", "a", "\n\n"]), (r"\A\Z", ["", "\n"]),
    (r"(?a)\w", ["a", "\xe9"]), (r"(a*)*b", ["aaab", "b", "aaa"]), (r"(a|a?)+$", ["aaa", "b", ""]), (r"(?:a*?)+?b", ["b", "ab"]),
    (r"(?<=^a)b", ["ab", "cab"]), (r"(?<=\n)b$", ["a\nb", "ab"]), (r"(?<=\bab)\b", ["ab", "xab"]), (r"(?<=(?<!x)ab)c", ["abc", "xabc"]),
    (r"(?<=a(?=bc)b)c", ["abc", "abd"]), (r"(?<=(?=ab).)b", ["ab", "bb"]), (r"(?=a(?<=xa))", ["xa", "a"]),
    (r"(?:(?=(?:ab)*c)(?:ab|c))+d", ["ababcd", "ababd"]), (r"(?!)", ["", "a"]), (r"(?!a|)", ["b"]), (r"(?:(?=a)){3}a", ["a", "b"]),
]

ATOMS = ["a", "b", "c", "[ab]", "[^a]", ".", " ", r"\n", r"\w", r"\W", r"\s", r"\b", r"\B", "^", "$", r"\Z", "(?m:^)",
         "(?m:$)", "(?s:.)", "(?i:B)"]


def pattern(depth):
    if depth == 0 or rng.random() < 0.25:
        return rng.choice(ATOMS)
    kind = rng.randrange(9)
    if kind <= 1:
        return pattern(depth - 1) + pattern(depth - 1)
    if kind == 2:
        return f"(?:{pattern(depth - 1)}|{pattern(depth - 1)})"
    if kind <= 4:
        return f"(?:{pattern(depth - 1)})" + rng.choice(["*", "+", "?", "{2}", "{0,2}", "{1,3}", "{2,}", "*?"])
    return "(" + ["?=", "?!", "?<=", "?<!"][kind - 5] + pattern(depth - 1) + ")"


def lines():
    for source, texts in HAND:
        for text in texts:
            yield source, text
    made = 0
    while made < 600:
        source = pattern(rng.randrange(2, 6))
        try:
            re.compile(source.encode("latin-1"))
        except re.error:
            continue
        made += 1
        for _ in range(4):
            yield source, "".join(rng.choice("aabbc_ \nB\xff") for _ in range(rng.randrange(0, 10)))


with open(__file__.replace(".py", ".jsonl"), "w") as out:
    for source, text in lines():
        if text == "" and "\\B" in source:
            continue
        found = re.search(source.encode("latin-1"), text.encode("latin-1")) is not None
        out.write(json.dumps([source, text, found]) + "\n")
