"""Families on whole numbers."""

from __future__ import annotations

import math
import random

from hafs.tasks.python.dsl import PythonDraft, define, family


@family("numbers")
def clamp(r: random.Random) -> PythonDraft:
    low, high = sorted(r.sample(range(-50, 100), 2))
    entry = r.choice(["clamp", "limit", "bounded", f"clamp_to_{high}" if high > 0 else "clamp"])
    return PythonDraft(
        entry,
        "x",
        [f"returns x, but at least {low} and at most {high}", f"limits x to the range {low} to {high}"],
        [f"keeps x inside [{low}, {high}]"],
        [(v,) for v in (low - 5, low, low + 1, high, high + 9, 0)],
        lambda x: low if x < low else high if x > high else x,
        {"min and max": define(entry, "x", f"return max({low}, min({high}, x))")},
    )


@family("numbers")
def sum_of_multiples(r: random.Random) -> PythonDraft:
    a, b = sorted(r.sample(range(2, 13), 2))
    entry = r.choice(["sum_of_multiples", "multiples_total", f"sum_{a}_{b}"])
    return PythonDraft(
        entry,
        "n",
        [
            f"sums all whole numbers from 0 below n that are divisible by {a} or {b}",
            f"adds up the multiples of {a} or {b} below n, each counted once",
        ],
        [f"returns the total of the numbers 0 to n - 1 that {a} or {b} divides"],
        [(v,) for v in (0, 1, a + 1, 50, 200, 1000)],
        lambda n: sum({*range(0, n, a), *range(0, n, b)}),
        {"generator": define(entry, "n", f"return sum(i for i in range(n) if i % {a} == 0 or i % {b} == 0)")},
    )


@family("numbers")
def digit_sum(r: random.Random) -> PythonDraft:
    base = r.choice([2, 3, 4, 5, 6, 7, 8, 9, 10])
    entry = r.choice(["digit_sum", "sum_of_digits", "cross_sum", f"digit_sum_base_{base}"])

    def oracle(n: int) -> int:
        total = 0
        while n:
            total, n = total + n % base, n // base
        return total

    return PythonDraft(
        entry,
        "n",
        [
            f"sums the digits of n, a whole number from 0 on, in base {base}",
            f"returns the sum of the base-{base} digits of n (n is not negative)",
        ],
        [f"adds the digits that n, which is at least 0, has when it is written in base {base}"],
        [(v,) for v in (0, 1, base, base**3 - 1, 12345, 987654321)],
        oracle,
        {
            "loop": define(
                entry, "n", f"total = 0\nwhile n:\n    n, digit = divmod(n, {base})\n    total += digit\nreturn total"
            )
        },
    )


@family("numbers")
def to_base(r: random.Random) -> PythonDraft:
    base = r.choice([2, 3, 4, 5, 6, 7, 8, 9])
    entry = r.choice(["to_base", "convert", "digits_of", f"to_base_{base}"])

    def oracle(n: int) -> str:
        return (oracle(n // base) if n >= base else "") + str(n % base)

    return PythonDraft(
        entry,
        "n",
        [
            f"returns n, a whole number from 0 on, as text in base {base}",
            f"writes n (not negative) in base {base}, as a string",
        ],
        [f"gives the base-{base} digits of n, which is at least 0, as a string without prefix"],
        [(v,) for v in (0, 1, base - 1, base, 100, 65535)],
        oracle,
        {
            "loop": define(
                entry,
                "n",
                f'digits = ""\nwhile True:\n    n, digit = divmod(n, {base})\n    digits = str(digit) + digits\n'
                "    if n == 0:\n        return digits",
            )
        },
    )


@family("numbers")
def is_prime(r: random.Random) -> PythonDraft:
    low = r.choice([0, 10, 20, 50, 100])
    entry = r.choice(["is_prime", "prime", "check_prime", "prime_test"])
    more = f" and greater than {low}" if low else ""
    return PythonDraft(
        entry,
        "n",
        [f"says whether n is a prime number{more}", f"returns True if n is prime{more}, else False"],
        [f"tests whether n is a prime{more}"],
        [(v,) for v in (-7, 0, 1, 2, 3, 4, 9, 17, 53, 58, 97, 101, 121, 122, 143, 169, 7919, low, low + 1)],
        lambda n: n > max(low, 1) and all(n % d for d in range(2, n)),
        {
            "trial division": define(
                entry,
                "n",
                f"if n < {low + 1 if low else 2}:\n    return False\n"
                "return all(n % d for d in range(2, int(n**0.5) + 1))",
            )
        },
    )


@family("numbers")
def safe_divide(r: random.Random) -> PythonDraft:
    instead = r.choice([0, -1, 1, None, 99])
    entry = r.choice(["safe_divide", "divide", "quotient", "ratio"])
    return PythonDraft(
        entry,
        "a, b",
        [
            f"returns a divided by b rounded down, or {instead} when b is 0",
            f"does a // b, but gives {instead} for a zero b",
        ],
        [f"gives the floor of a over b and {instead} if b equals zero"],
        [(7, 2), (7, 0), (-7, 2), (0, 5), (0, 0), (9, -4)],
        lambda a, b: math.floor(a / b) if b else instead,
        {"conditional": define(entry, "a, b", f"return a // b if b else {instead}")},
    )


@family("numbers")
def common_divisor(r: random.Random) -> PythonDraft:
    kind = r.choice(["greatest common divisor", "least common multiple"])
    k = r.choice([1, 2, 3, 5, 10])
    entry = r.choice(
        ["combine", "of_two", "gcd_of" if kind[0] == "g" else "lcm_of", "divisor" if kind[0] == "g" else "multiple"]
    )
    of = f"{k} times the {kind}" if k > 1 else f"the {kind}"
    times, name = f"{k} * " if k > 1 else "", "gcd" if kind[0] == "g" else "lcm"
    return PythonDraft(
        entry,
        "a, b",
        [f"returns {of} of the positive whole numbers a and b", f"computes {of} of a and b, which are positive"],
        [f"finds {of} for two positive integers a and b"],
        [(1, 1), (12, 18), (7, 13), (100, 75), (48, 180), (17, 17)],
        lambda a, b: (
            k * next(d for d in range(min(a, b), 0, -1) if a % d == b % d == 0)
            if kind[0] == "g"
            else k * next(m for m in range(max(a, b), a * b + 1) if m % a == m % b == 0)
        ),
        {"math": "import math\n\n\n" + define(entry, "a, b", f"return {times}math.{name}(a, b)")},
    )
