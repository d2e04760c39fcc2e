"""Families on texts."""

from __future__ import annotations

import random

from hafs.tasks.python.dsl import PythonDraft, define, family, phrase, texts


@family("text")
def count_letter(r: random.Random) -> PythonDraft:
    letter = r.choice("aeiorst")
    entry = r.choice(["count_letter", f"count_{letter}", "occurrences", "how_many"])
    return PythonDraft(
        entry,
        "text",
        [
            f"counts the letter {letter!r} in text, upper and lower case alike",
            f"returns how often {letter!r} or {letter.upper()!r} is in text",
        ],
        [f"gives the number of times {letter!r} occurs in text in either case"],
        texts(r),
        lambda text: len([c for c in text if c in letter + letter.upper()]),
        {"count": define(entry, "text", f'return text.lower().count("{letter}")')},
    )


@family("text")
def reverse_words(r: random.Random) -> PythonDraft:
    joint = r.choice([" ", "-", "_", ", ", "/"])
    entry = r.choice(["reverse_words", "backwards", "words_reversed", "turn_around"])
    return PythonDraft(
        entry,
        "text",
        [
            f"returns the words of text in reverse order, joined by {joint!r}",
            f"reverses the order of the words in text and puts {joint!r} between them",
        ],
        [f"lists the words of text from last to first with {joint!r} in between"],
        texts(r),
        lambda text: joint.join(reversed(text.split())),
        {"slice": define(entry, "text", f'return "{joint}".join(text.split()[::-1])')},
    )


@family("text")
def is_palindrome(r: random.Random) -> PythonDraft:
    least = r.choice([0, 2, 3, 4, 5])
    entry = r.choice(["is_palindrome", "palindrome", "same_backwards", "mirrors"])
    more = f" and has at least {least} characters" if least else ""
    return PythonDraft(
        entry,
        "text",
        [
            f"says whether text reads the same backwards, ignoring case{more}",
            f"returns True if text is a palindrome regardless of case{more}, else False",
        ],
        [f"tests if text equals its reverse without regard to case{more}"],
        [*texts(r), ("Level",), ("noon",), ("ab",), ("aba",), ("Abba",)],
        lambda text: (
            len(text) >= least and all(a.lower() == b.lower() for a, b in zip(text, reversed(text), strict=True))
        ),
        {
            "slice": define(
                entry,
                "text",
                "text = text.lower()\n"
                + (f"return len(text) >= {least} and text == text[::-1]" if least else "return text == text[::-1]"),
            )
        },
    )


@family("text")
def caesar(r: random.Random) -> PythonDraft:
    k = r.randint(1, 25)
    entry = r.choice(["caesar", "shift", f"rot{k}", "encrypt"])

    def oracle(text: str) -> str:
        a = "abcdefghijklmnopqrstuvwxyz"
        return text.translate(str.maketrans(a + a.upper(), a[k:] + a[:k] + (a[k:] + a[:k]).upper()))

    body = (
        f'out = ""\nfor c in text:\n    if "a" <= c <= "z":\n        c = chr((ord(c) - 97 + {k}) % 26 + 97)\n'
        f'    elif "A" <= c <= "Z":\n        c = chr((ord(c) - 65 + {k}) % 26 + 65)\n    out += c\nreturn out'
    )
    return PythonDraft(
        entry,
        "text",
        [
            f"shifts every letter a-z and A-Z of text by {k} places in the alphabet, around its end, and keeps the "
            "rest",
            f"applies a Caesar cipher with shift {k} to the letters of text (a-z, A-Z) and leaves other characters",
        ],
        [f"moves each letter (a-z, A-Z) in text {k} on in the alphabet, cyclically; other characters stay"],
        texts(r),
        oracle,
        {"loop": define(entry, "text", body)},
    )


@family("text")
def longest_word(r: random.Random) -> PythonDraft:
    which = r.choice(["first", "last"])
    instead = r.choice(["", "none", "?", "-"])
    entry = r.choice(["longest_word", "longest", "biggest_word", "find_longest"])

    def oracle(text: str) -> str:
        words = text.split()
        best = [w for w in words if len(w) == max(map(len, words))]
        return (best[0] if which == "first" else best[-1]) if best else instead

    turn = "[::-1]" if which == "last" else ""
    return PythonDraft(
        entry,
        "text",
        [
            f"returns the longest word of text, the {which} one if several are as long, and {instead!r} if there is "
            "none",
            f"finds the longest of the words of text; of equally long ones the {which}; {instead!r} without words",
        ],
        [f"gives the word of text that has most characters (the {which} on a tie, {instead!r} when text has no word)"],
        texts(r),
        oracle,
        {"max": define(entry, "text", f'return max(text.split(){turn}, key=len, default="{instead}")')},
    )


@family("text")
def vowels(r: random.Random) -> PythonDraft:
    to = r.choice(["*", "_", "#", ".", "", "o", "x"])
    entry = r.choice(["hide_vowels", "mask", "replace_vowels", "no_vowels"])
    what = (
        f"replaces every vowel (aeiou, AEIOU) of text by {to!r}"
        if to
        else "removes every vowel (aeiou, AEIOU) from text"
    )
    other = (
        f"puts {to!r} in place of each of aeiouAEIOU in text" if to else "returns text without the letters aeiouAEIOU"
    )
    return PythonDraft(
        entry,
        "text",
        [what, other],
        [
            f"swaps the vowels aeiou of text, in both cases, for {to!r}"
            if to
            else "drops the vowels aeiou, in both cases, of text"
        ],
        texts(r),
        lambda text: "".join(to if c.lower() in {"a", "e", "i", "o", "u"} else c for c in text),
        {"join": define(entry, "text", f'return "".join("{to}" if c in "aeiouAEIOU" else c for c in text)')},
    )


@family("text")
def initials(r: random.Random) -> PythonDraft:
    joint = r.choice(["", ".", "-", " ", "/"])
    entry = r.choice(["initials", "acronym", "first_letters", "abbreviate"])
    between = f"with {joint!r} between them" if joint else "without anything between them"
    return PythonDraft(
        entry,
        "text",
        [
            f"returns the first letters of the words of text in upper case, {between}",
            f"makes upper-case initials of the words in text, {between}",
        ],
        [f"joins each word's first character of text, capitalised, {between}"],
        texts(r),
        lambda text: joint.join(w[0] for w in text.upper().split()),
        {"join": define(entry, "text", f'return "{joint}".join(word[0].upper() for word in text.split())')},
    )


@family("text")
def run_lengths(r: random.Random) -> PythonDraft:
    first = r.choice([True, False])
    least = r.choice([1, 2, 3, 4])
    entry = r.choice(["encode", "run_lengths", "compress", "squeeze"])
    order = "its length and the character" if first else "the character and its length"

    def oracle(text: str) -> str:
        out, i = "", 0
        while i < len(text):
            n = len(text[i:]) - len(text[i:].lstrip(text[i]))
            one = f"{n}{text[i]}" if first else f"{text[i]}{n}"
            out, i = out + (one if n >= least else text[i] * n), i + n
        return out

    part = (
        '        out += f"{n}{char}" if n >= LEAST else char * n'
        if first
        else '        out += f"{char}{n}" if n >= LEAST else char * n'
    )
    body = (
        (
            "import itertools\n\n\n"
            + define(
                entry,
                "text",
                'out = ""\nfor char, run in itertools.groupby(text):\n    n = len(list(run))\n'
                + part[4:].replace("LEAST", str(least))
                + "\nreturn out",
            )
        )
        if least > 1
        else (
            "import itertools\n\n\n"
            + define(
                entry,
                "text",
                'out = ""\nfor char, run in itertools.groupby(text):\n    n = len(list(run))\n'
                + ('    out += f"{n}{char}"' if first else '    out += f"{char}{n}"')
                + "\nreturn out",
            )
        )
    )
    rule = "" if least == 1 else f"; runs shorter than {least} stay as they are"
    return PythonDraft(
        entry,
        "text",
        [
            f"replaces every run of the same character in text by {order}{rule}",
            f"does run-length encoding of text, {order} for each run{rule}",
        ],
        [f"writes {order} for each stretch of equal characters of text{rule}"],
        [("",), ("a",), ("aaab",), ("aabbbbcdd",), ("zzzzz",), (phrase(r, 2),)],
        oracle,
        {"groupby": body},
    )
