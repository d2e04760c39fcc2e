"""Control flow: comparisons, selections, limits, dispatch."""

from __future__ import annotations

from hafs_snes.tasks.dsl import SINGLE_BITS, After, Draft, Draw, byte, family, h2, signed, word

CONTROL = "control flow"


@family("asm", CONTROL, easy=True)
def min8(d: Draw) -> Draft:
    """The smaller of two unsigned bytes."""
    a, b = d.addresses(2)
    z = d.direct()
    e = d.choice(["MinByte", "Smaller", "Lowest", "PickMin"])
    return Draft(
        entry=e,
        ask=[
            f"store the smaller of the unsigned bytes at {a} and {b} at {z}",
            f"{z} = min({a}, {b}), unsigned",
            f"compare {a} with {b}, unsigned, and put the lower one in {z}",
            f"the minimum of the unsigned bytes {a} and {b} goes to {z}",
            f"put the smaller one of the bytes {a} and {b} (unsigned) in {z}",
            f"set {z} to {a} if {a} < {b}, else to {b} (unsigned bytes)",
            f"{z} becomes the lower of the unsigned values in {a} and {b}",
            f"load {a}; if the byte {b} is lower (unsigned), load that instead; store the result at {z}",
            f"if {a} is less than {b} copy {a} to {z}, otherwise copy {b} (unsigned)",
            f"write the minimum of {a} and {b} to {z}, comparing unsigned bytes",
            f"of the two unsigned bytes {a} and {b}, keep the smaller in {z}",
            f"{z} = {a} < {b} ? {a} : {b}, unsigned",
            f"find the lowest of the unsigned bytes at {a} and {b} and save it to {z}",
            f"into {z} put whichever unsigned byte is smaller, {a} or {b}",
            f"take the byte at {a} or the one at {b}, the lower (unsigned), and move it to {z}",
            f"two unsigned bytes are in {a} and {b}; leave their minimum at {z}",
            f"mem[{z}] = min(mem[{a}], mem[{b}]), unsigned bytes",
            f"copy {a} to {z}, but if the unsigned byte {b} is below it, copy {b} instead",
        ],
        ask_test=[
            f"compare the unsigned bytes at {a} and {b}; the smaller is written to {z}",
            f"find which byte is lower, {a} or {b} (unsigned), and copy it to {z}",
            f"{z} gets the byte {a}, or {b} if that is smaller (unsigned)",
        ],
        cases=d.cases({a: byte(x), b: byte(y)} for x, y in zip(d.edges8(), _others(d), strict=True)),
        after=lambda mem: {z: byte(min(mem[a], mem[b]))},
        references={
            "keep": f"LDA {a} / CMP {b} / BCC .done / LDA {b} / .done / STA {z} / RTS",
            "store_twice": f"LDA {a} / STA {z} / CMP {b} / BCC .done / LDA {b} / STA {z} / .done / RTS",
        },
    )


@family("asm", CONTROL)
def max8(d: Draw) -> Draft:
    """The larger of two unsigned bytes."""
    a, b = d.addresses(2)
    z = d.direct()
    return Draft(
        entry="MaxByte",
        ask=[
            f"store the larger of the unsigned bytes at {a} and {b} at {z}",
            f"{z} = max({a}, {b}), unsigned",
            f"the higher one of the unsigned bytes {a} and {b} goes to {z}",
            f"compare {a} with {b}, unsigned, and put the higher one in {z}",
            f"the maximum of the unsigned bytes {a} and {b} goes to {z}",
            f"set {z} to {a} if {a} > {b}, else to {b} (unsigned bytes)",
            f"load {a}; if the byte {b} is higher (unsigned), load that instead; store the result at {z}",
            f"if {a} is less than {b} copy {b} to {z}, otherwise copy {a} (unsigned)",
            f"{z} = {a} > {b} ? {a} : {b}, unsigned",
            f"find the highest of the unsigned bytes at {a} and {b} and save it to {z}",
            f"into {z} put whichever unsigned byte is larger, {a} or {b}",
            f"two unsigned bytes are in {a} and {b}; leave their maximum at {z}",
        ],
        ask_test=[
            f"compare the unsigned bytes {a} and {b} and keep the greater in {z}",
            f"find which byte is higher, {a} or {b} (unsigned), and copy it to {z}",
            f"{z} gets the byte {a}, or {b} if that is larger (unsigned)",
        ],
        cases=d.cases({a: byte(x), b: byte(y)} for x, y in zip(d.edges8(), _others(d), strict=True)),
        after=lambda mem: {z: byte(max(mem[a], mem[b]))},
        references={
            "keep": f"LDA {a} / CMP {b} / BCS .done / LDA {b} / .done / STA {z} / RTS",
            "store_twice": f"LDA {a} / STA {z} / CMP {b} / BCS .done / LDA {b} / STA {z} / .done / RTS",
        },
    )


def _others(d: Draw) -> list[int]:
    """Partners for `Draw.edges8` on both sides of each edge."""
    return [0, 2, 1, 0x80, 0x7F, 0x7F, 0x81, 0xFF, 0, *(d.number(0, 255) for _ in range(7))]


@family("asm", CONTROL, easy=True)
def bool_eq(d: Draw) -> Draft:
    """1 if a byte equals a constant, else 0."""
    a, z, k = d.address(), d.direct(), d.immediate(1)
    e = d.choice(["CheckEqual", "IsValue", "TestMode", "CheckByte"])
    return Draft(
        entry=e,
        ask=[
            f"store $01 at {z} if the byte at {a} equals {k}, otherwise store $00",
            f"{z} = 1 when {a} is {k}, else 0",
            f"set {z} to 1 if {a} == {k}, to 0 if not",
            f"make {z} tell whether {a} equals {k}, 1 for yes and 0 for no",
            f"{z} = ({a} == {k}), as 1 or 0",
            f"compare the byte at {a} with {k}; {z} becomes 1 if they are equal, 0 if they differ",
            f"put 1 in {z} when the byte {a} has the value {k}, and 0 when it has not",
            f"if {a} is equal to {k} then {z} = $01, else {z} = $00",
            f"clear {z}, then set it to 1 if {a} holds {k}",
            f"test {a} for the value {k} and store 1 (equal) or 0 (different) in {z}",
            f"{z} gets 1 for {a} = {k} and 0 for every other value of {a}",
            f"check if the byte in {a} is {k}; answer 1 or 0 in {z}",
            f"load {a}, compare it with {k} and save 1 for equal or 0 for not equal to {z}",
            f"the byte {z} becomes 1 if {a} and {k} are the same, else 0",
            f"store 0 in {z} if the byte at {a} is not {k}, 1 if it is",
            f"when {a} is {k}, {z} becomes 1; when it is something else, 0",
            f"leave 1 in {z} for a byte {k} at {a}, 0 otherwise",
            f"mem[{z}] = mem[{a}] == {k} ? 1 : 0",
        ],
        ask_test=[
            f"compare {a} with {k} and write 1 (same) or 0 (different) to {z}",
            f"put the answer in {z}, 1 or 0, whether the byte at {a} is equal to {k}",
            f"1 goes to {z} if {a} has the value {k}, and 0 if it does not",
        ],
        cases=d.cases({a: byte(x)} for x in d.edges8(k, k ^ 1, k, k + 1, k - 1)),
        after=lambda mem: {z: byte(mem[a] == k)},
        references={
            "count": f"STZ {z} / LDA {a} / CMP #{k} / BNE .done / INC {z} / .done / RTS",
            "two_paths": f"LDA {a} / CMP #{k} / BEQ .yes / LDA #$00 / STA {z} / RTS / .yes / LDA #$01 / STA {z} / RTS",
        },
    )


@family("asm", CONTROL, easy=True)
def select_lt(d: Draw) -> Draft:
    """One of two constants by comparison."""
    a, z, k = d.address(), d.direct(), d.immediate(2, 253)
    p, q = (h2(x) for x in d.sample(range(256), 2))
    e = d.choice(["SelectMode", "PickSpeed", "ChooseTile", "SelectByte"])
    return Draft(
        entry=e,
        ask=[
            f"if the unsigned byte at {a} is less than {k} store {p} at {z}, otherwise store {q}",
            f"{z} = {p} if {a} < {k}, else {q} (unsigned)",
            f"when {a} is below {k}, {z} becomes {p}; if not, {q} (unsigned)",
            f"compare {a} with {k}, unsigned; less gives {p}, else {q}, in {z}",
            f"put {p} in {z} if the unsigned byte {a} is lower than {k}, else {q}",
            f"set {z} to {p} for {a} < {k} and to {q} for {a} >= {k}, unsigned",
            f"{z} = {a} < {k} ? {p} : {q}, unsigned",
            f"store {q} at {z} if the unsigned byte {a} is at least {k}, {p} if it is less",
            f"load the unsigned byte {a}; under {k} write {p} to {z}, from {k} on write {q}",
            f"{z} gets {p} while {a} is under {k}, {q} otherwise (unsigned)",
            f"write {p} to {z}, or {q} if the unsigned byte at {a} is {k} or more",
            f"if {a} >= {k} (unsigned) then {z} = {q}, else {z} = {p}",
            f"the unsigned byte at {a} selects the value of {z}; below {k} it is {p}, from {k} up it is {q}",
            f"choose {p} for {z} if the unsigned byte in {a} is below {k}, and {q} if it is not",
            f"save {p} to {z} if {k} is greater than the unsigned byte {a}, else save {q}",
            f"test the unsigned byte {a} against {k}; smaller puts {p} into {z}, not smaller {q}",
            f"leave {q} in {z}, but {p} when {a} is less than {k}, unsigned",
            f"mem[{z}] = mem[{a}] < {k} ? {p} : {q}, unsigned bytes",
        ],
        ask_test=[
            f"for values of the unsigned byte {a} under {k} write {p} to {z}, for all others {q}",
            f"{z} becomes {q}, but {p} if the unsigned byte {a} is smaller than {k}",
            f"{p} goes to {z} if {a} < {k} (unsigned) and {q} goes there if not",
        ],
        cases=d.cases({a: byte(x)} for x in d.edges8(k, k - 1, k + 1)),
        after=lambda mem: {z: byte(p if mem[a] < k else q)},
        references={
            "preload": f"LDX #{p} / LDA {a} / CMP #{k} / BCC .done / LDX #{q} / .done / STX {z} / RTS",
            "two_paths": f"LDA {a} / CMP #{k} / BCC .low / LDA #{q} / STA {z} / RTS / .low / LDA #{p} / STA {z} / RTS",
        },
    )


@family("asm", CONTROL, easy=True)
def dec_timer(d: Draw) -> Draft:
    """Count a timer down, stopping at zero."""
    a = d.address()
    e = d.choice(["TickTimer", "DecTimer", "CountDown", "RunTimer"])
    return Draft(
        entry=e,
        ask=[
            f"decrement the timer at {a} unless it is already zero",
            f"count {a} down by one, stopping at 0",
            f"if {a} is not 0, subtract 1 from it",
            f"{a} goes down by 1 but never below 0",
            f"{a} = max(0, {a} - 1)",
            f"if {a} > 0 then {a} = {a} - 1, unsigned",
            f"lower the byte {a} by one, but leave 0 as it is",
            f"if the byte at {a} is zero do nothing, else decrement it",
            f"count the timer in {a} down one step; at 0 it stays 0",
            f"subtract one from the counter at {a}, except when it is 0",
            f"decrement {a} when it is not zero",
            f"load {a}; if it is zero return, otherwise store {a} - 1 back",
            f"make the byte {a} one less, with 0 as the lowest value",
            f"let the timer byte {a} run down by 1 and stop at zero",
            f"if (mem[{a}] != 0) mem[{a}]--",
            f"reduce {a} by 1 if it is above 0",
            f"a zero at {a} stays, any other byte there is decremented",
            f"take 1 away from {a}; a value of 0 is not changed",
        ],
        ask_test=[
            f"unless {a} is 0, make it 1 lower",
            f"the counter {a} goes down one step and stops at zero",
            f"subtract 1 from the timer at {a}, but not when it is already 0",
        ],
        cases=d.cases({a: byte(x)} for x in d.edges8()),
        after=lambda mem: {a: byte(max(0, mem[a] - 1))},
        references={
            "memory": f"LDA {a} / BEQ .done / DEC {a} / .done / RTS",
            "subtract": f"LDA {a} / CMP #$00 / BEQ .done / SEC / SBC #$01 / STA {a} / .done / RTS",
        },
    )


@family("asm", CONTROL)
def clamp8(d: Draw) -> Draft:
    """Limit a byte to a range."""
    a = d.address()
    low, high = (h2(x) for x in sorted(d.sample(range(4, 251), 2)))
    return Draft(
        entry="ClampValue",
        ask=[
            f"clamp the unsigned byte at {a} to the range {low} to {high} in place",
            f"limit {a} to at least {low:d} and at most {high:d} (unsigned)",
            f"values of {a} below {low} become {low}, values above {high} become {high} (unsigned)",
            f"{a} = min({high}, max({low}, {a})), unsigned",
            f"if the unsigned byte {a} is less than {low} store {low} there, if it is greater than {high} store {high}",
            f"make the unsigned byte {a} at least {low} and at most {high}",
            f"bring the unsigned byte at {a} into the range {low}..{high}, both ends allowed",
            f"raise {a} to {low} if it is lower, lower it to {high} if it is higher (unsigned)",
            f"load {a}, limit it to {low} to {high} (unsigned) and store it back",
            f"{a} = clamp({a}, {low}, {high}), unsigned byte",
            f"when {a} < {low} then {a} = {low}; when {a} > {high} then {a} = {high}; unsigned",
            f"the unsigned byte in {a} may not go below {low} or above {high}; correct it in place",
        ],
        ask_test=[
            f"keep the unsigned byte {a} between {low} and {high}, both allowed",
            f"{low} is the lowest and {high} the highest value for the unsigned byte {a}; limit it",
            f"let the unsigned byte at {a} be no less than {low} and no more than {high}",
        ],
        cases=d.cases({a: byte(x)} for x in d.edges8(low, low - 1, low + 1, high, high - 1, high + 1)),
        after=lambda mem: {a: byte(min(high, max(low, mem[a])))},
        references={
            "chain": f"LDA {a} / CMP #{low} / BCS .above / LDA #{low} / .above / CMP #{high + 1} / BCC "
            f".done / LDA #{high} / "
            f".done / STA {a} / RTS",
            "early_store": f"LDX #{low} / LDA {a} / CMP #{low} / BCC .store / LDX #{high} / CMP #{high} / "
            "BCC .done / .store / "
            f"STX {a} / .done / RTS",
        },
    )


@family("asm", CONTROL)
def test_bits(d: Draw) -> Draft:
    """Answer with the carry whether bits of a byte are set."""
    a, m = d.address(), h2(d.choice([*SINGLE_BITS, 0x11, 0xC0, 0x06]))
    return Draft(
        entry="CheckFlag",
        keep="XY",
        ask=[
            f"return with carry set if any bit of {m} is set in {a}, with carry clear otherwise; keep X and Y",
            f"carry = 1 if ({a} AND {m}) is not zero, else 0; X and Y must be kept",
            f"test {a} for the bits {m}; set the carry when one of them is on, clear it if none; X and Y unchanged",
            f"set the carry if {a} has any of the bits {m}, otherwise clear it, and keep X and Y",
            f"AND {a} with {m}; carry clear for a zero result, carry set if not; leave X and Y alone",
            f"the carry tells whether {a} has a bit of {m} (set = yes); X and Y stay",
            f"C = ({a} & {m}) != 0, without changing X or Y",
            f"check if one or more of the flags {m} are set in {a}; answer in the carry (1 = yes), X and Y unchanged",
            f"clear the carry if all bits {m} of the byte {a} are 0, else set it; X and Y as before",
            f"load {a}, mask it by {m} and return carry 1 if something is left, carry 0 if not; keep X and Y",
            f"if {a} AND {m} is zero return carry clear, otherwise carry set; do not change X and Y",
        ],
        ask_test=[
            f"tell by the carry whether {a} has any bit of {m} (set = yes), and keep X and Y",
            f"return carry clear when no flag of {m} is on in {a}, and carry set when one is; X and Y stay",
            f"carry 1 if there is a 1 in the bits {m} of {a}, else carry 0; X and Y unchanged",
        ],
        cases=d.cases({a: byte(x)} for x in d.edges8(m, ~m)),
        after=lambda mem: After(flags={"C": int(mem[a] & m != 0)}),
        references={
            "compare": f"LDA {a} / AND #{m} / CMP #$01 / RTS",
            "branch": f"LDA {a} / AND #{m} / BEQ .no / SEC / RTS / .no / CLC / RTS",
        },
    )


@family("asm", CONTROL)
def range_check(d: Draw) -> Draft:
    """Answer with the carry whether a byte lies in a range."""
    a = d.address()
    low, high = (h2(x) for x in sorted(d.sample(range(4, 251), 2)))
    return Draft(
        entry="InRange",
        ask=[
            f"set the carry if the unsigned byte at {a} is at least {low} and below {high}, otherwise clear it",
            f"carry = 1 when {low} <= {a} < {high} (unsigned), else 0",
            f"carry set means the unsigned byte {a} lies in {low}..{high - 1}, carry clear means outside",
            f"return with carry set if {a} is from {low} to {high - 1} (unsigned), with carry clear if not",
            f"C = ({a} >= {low} && {a} < {high}), unsigned",
            f"check if the unsigned byte {a} is in the range {low} to {high - 1}; answer in the carry (1 = yes)",
            f"clear the carry if the unsigned byte {a} is below {low} or at least {high}, else set it",
            f"compare the unsigned byte {a} with {low} and {high}; carry 1 for {low} <= {a} < {high}, 0 for all others",
            f"the carry tells whether the unsigned byte at {a} is {low} or more and less than {high} (set = yes)",
            f"if {a} < {low} or {a} >= {high} (unsigned) return carry clear, otherwise carry set",
            f"test the unsigned byte {a}; from {low} on and under {high} it gives carry set, else carry clear",
        ],
        ask_test=[
            f"tell by the carry whether {a} lies between {low} (included) and {high} (not included), "
            "unsigned, set = yes",
            f"return carry clear for values of the unsigned byte {a} outside {low} to {high - 1}, and carry set inside",
            f"the unsigned byte {a} gives carry 1 if it is not below {low} but below {high}, else carry 0",
        ],
        cases=d.cases({a: byte(x)} for x in d.edges8(low, low - 1, low + 1, high, high - 1, high + 1)),
        after=lambda mem: After(flags={"C": int(low <= mem[a] < high)}),
        references={
            "offset": f"LDA #{high - 1} / SEC / SBC {a} / CMP #{h2(high - low)} / BCC .yes / CLC / RTS / "
            ".yes / SEC / RTS",
            "subtract": f"LDA {a} / CMP #{low} / BCC .no / CMP #{high} / BCS .out / SEC / RTS / .out / CLC / .no / RTS",
        },
    )


@family("asm", CONTROL)
def wrap_counter(d: Draw) -> Draft:
    """Count up and start again at a limit."""
    a, n = d.address(), h2(d.choice([3, 5, 6, 10, 12, 24, 60, 100]))
    return Draft(
        entry="NextFrame",
        ask=[
            f"increment the byte at {a}; when it reaches {n:d} set it back to 0; it is below {n:d} before",
            f"{a} = ({a} + 1) mod {n:d}, {a} starts below {n:d}",
            f"{a} is a counter that runs 0 to {n - 1:d} and wraps; count it one step",
            f"add 1 to the byte {a}, from {n - 1} go back to 0",
            f"count {a} up by one and start again at 0 when it gets to {n}",
            f"if {a} is {n - 1} then {a} = 0, else {a} = {a} + 1",
            f"the counter {a} goes up by 1, after {n - 1:d} comes 0",
            f"raise {a} by 1; if it is now {n}, clear it",
            f"let the frame counter in {a} run one step through 0 to {n - 1:d}, then 0 again",
            f"load {a}, add one, store 0 if that is {n} and the sum if not",
            f"increase the byte at {a} by one modulo {n:d}; it is never {n:d} or more before",
            f"mem[{a}] = mem[{a}] == {n - 1} ? 0 : mem[{a}] + 1",
        ],
        ask_test=[
            f"move the counter {a} on by one; after {n - 1:d} comes 0 again, it never starts higher",
            f"increment {a} and wrap it to 0 at {n}",
            f"the byte {a} becomes {a} + 1, or zero if that is {n:d}",
        ],
        cases=d.cases({a: byte(x % n)} for x in [0, n - 1, n - 2, 1, n - 1, *(d.number(0, 255) for _ in range(11))]),
        after=lambda mem: {a: byte((mem[a] + 1) % n)},
        references={
            "memory": f"INC {a} / LDA {a} / CMP #{n} / BNE .done / STZ {a} / .done / RTS",
            "register": f"LDA {a} / INC / CMP #{n} / BCC .done / LDA #$00 / .done / STA {a} / RTS",
        },
    )


@family("asm", CONTROL)
def sign8(d: Draw) -> Draft:
    """-1, 0 or 1 by comparison of two bytes."""
    a, b = d.addresses(2)
    z = d.direct()
    return Draft(
        entry="Compare",
        ask=[
            f"store $01 at {z} if the unsigned byte {a} is greater than {b}, $FF if it is less, $00 if they are equal",
            f"{z} = sign({a} - {b}) for unsigned bytes, as $FF, $00 or $01",
            f"{z} becomes 0 when {a} equals {b}, 1 when {a} is higher, $FF when {a} is lower (unsigned)",
            f"compare the unsigned bytes {a} and {b}; less gives $FF, equal $00, greater $01, in {z}",
            f"put $FF in {z} if {a} < {b}, 1 if {a} > {b} and 0 if {a} = {b} (unsigned)",
            f"if {a} = {b} then {z} = 0, if {a} < {b} then {z} = $FF, else {z} = 1; unsigned",
            f"test the unsigned byte {a} against {b} and store 1 (larger), 0 (same) or $FF (smaller) in {z}",
            f"write to {z} how {a} compares with {b}, unsigned; above is $01, below is $FF, equal is $00",
            f"{z} = {a} > {b} ? 1 : {a} < {b} ? $FF : 0, unsigned",
            f"{z} gets $01 for {a} above {b}, $00 for the same value and $FF for {a} below {b}, unsigned",
            f"set {z} to 0, then to 1 if the unsigned byte {a} is more than {b}, or to $FF if it is less",
        ],
        ask_test=[
            f"put $FF (less), 0 (same) or 1 (more) in {z} for the unsigned byte {a} compared with {b}",
            f"when {a} is smaller than {b} store $FF at {z}, when larger $01, when equal $00 (unsigned)",
            f"leave in {z} the sign of the unsigned comparison of {a} and {b}, 1 for higher, 0 for equal, "
            "$FF for lower",
        ],
        cases=d.cases({a: byte(x), b: byte(y)} for x, y in zip(d.edges8(), _others(d), strict=True)),
        after=lambda mem: {z: byte((mem[a] > mem[b]) - (mem[a] < mem[b]))},
        references={
            "preload": f"LDX #$00 / LDA {a} / CMP {b} / BEQ .done / INX / BCS .done / LDX #$FF / .done / STX {z} / RTS",
            "paths": f"STZ {z} / LDA {a} / CMP {b} / BEQ .done / BCC .less / INC {z} / RTS / .less / DEC "
            f"{z} / .done / RTS",
        },
    )


@family("asm", CONTROL)
def guarded_count(d: Draw) -> Draft:
    """Count only while a flag is clear."""
    a, b = d.addresses(2)
    m = h2(d.choice([0x01, 0x02, 0x10, 0x40, 0x80]))
    return Draft(
        entry="CountFrames",
        ask=[
            f"increment the byte at {b}, but do nothing while a bit of {m} is set in the pause flags at {a}",
            f"if ({a} AND {m}) is zero then {b} = {b} + 1",
            f"return at once when {a} has the bit {m}, else add one to {b}",
            f"add 1 to {b} unless the bit {m} of {a} is set",
            f"increment {b} only if the bit {m} of {a} is clear",
            f"test the bit {m} of the byte at {a}; if it is 0, count {b} up by one",
            f"if (!(mem[{a}] & {m})) mem[{b}]++",
            f"count the byte {b} up by 1 when {a} AND {m} is 0, otherwise leave it alone",
            f"load {a}, mask it by {m}, and if nothing is left increase {b} by one",
            f"while the flag {m} in {a} is on, {b} stays; when it is off, {b} goes up by 1",
            f"the byte {b} gets one more, but not if {a} has the bit {m} set",
            f"raise the counter {b} by one except when the pause bit {m} of {a} is 1",
        ],
        ask_test=[
            f"the counter {b} goes up by 1 unless bit {m} of {a} says the game is paused",
            f"with the bit {m} of {a} off increment the byte at {b}, with it on do nothing",
            f"make {b} one larger if no bit of {m} is on in {a}",
        ],
        cases=d.cases({a: byte(x), b: byte(y)} for x, y in zip(d.edges8(m, ~m), reversed(d.edges8()), strict=True)),
        after=lambda mem: {b: byte(mem[b] + (mem[a] & m == 0))},
        references={
            "bit": f"LDA #{m} / BIT {a} / BNE .done / INC {b} / .done / RTS",
            "add": f"LDA {a} / AND #{m} / BNE .done / LDA {b} / CLC / ADC #$01 / STA {b} / .done / RTS",
        },
    )


@family("asm", CONTROL)
def case_value(d: Draw) -> Draft:
    """Map three values to three others, everything else to a default."""
    a, z = d.address(), d.direct()
    keys = [h2(x) for x in d.sample(range(1, 256), 3)]
    values = [h2(x) for x in d.sample(range(1, 256), 4)]
    shown = ", ".join(f"{k} -> {v}" for k, v in zip(keys, values, strict=False))
    tests = "".join(
        f"CMP #{k} / BEQ .store / " if i == 0 else f"LDX #{values[i]} / CMP #{k} / BEQ .store / "
        for i, k in enumerate(keys)
    )
    paths = "".join(
        f"CMP #{k} / BNE .not{i} / LDA #{v} / BRA .store / .not{i} / "
        for i, (k, v) in enumerate(zip(keys, values, strict=False))
    )
    return Draft(
        entry="MapValue",
        ask=[
            f"translate the byte at {a} and store the result at {z}, {shown}, anything else -> {values[3]}",
            f"switch ({a}) {shown}, default {values[3]}; result in {z}",
            f"{z} depends on {a}; {shown}; for other values {values[3]}",
            f"map the byte {a} to {z} by {shown}, all others -> {values[3]}",
            f"set {z} by the value of {a}, {shown}, otherwise {values[3]}",
            f"compare {a} with three values and store the matching byte in {z}, {shown}, no match -> {values[3]}",
            f"{z} gets a value for each value of {a}, {shown}, else {values[3]}",
            f"put into {z} what belongs to {a}, {shown}; every other value of {a} gives {values[3]}",
            f"the byte {a} selects {z}; {shown}, default {values[3]}",
            f"load {a} and write to {z} by these cases, {shown}, any other -> {values[3]}",
            f"store {values[3]} at {z}, except for these values of {a}, {shown}",
            f"choose the byte for {z} by {a}, {shown}, if none of them {values[3]}",
        ],
        ask_test=[
            f"depending on {a}, write to {z}, {shown}, otherwise {values[3]}",
            f"look at the byte {a} and leave in {z}, {shown}, for all other values {values[3]}",
            f"with {a} as the key, {z} becomes, {shown}, or {values[3]} by default",
        ],
        cases=d.cases({a: byte(x)} for x in d.edges8(*keys, *(k + 1 for k in keys))),
        after=lambda mem: {z: byte(dict(zip(keys, values, strict=False)).get(h2(mem[a]), values[3]))},
        references={
            "preload": f"LDX #{values[0]} / LDA {a} / {tests}LDX #{values[3]} / .store / STX {z} / RTS",
            "paths": f"LDA {a} / {paths}LDA #{values[3]} / .store / STA {z} / RTS",
        },
    )


@family("asm", CONTROL)
def signed_max16(d: Draw) -> Draft:
    """The larger of two signed words."""
    a, b, c = d.addresses(3, 2)
    others = [0x8000, 1, 0xFF00, 0x7FFF, 0x8000, 0x7FFF, 0, 1, 0x7F00]
    return Draft(
        entry="MaxSigned",
        ask=[
            f"compare the signed 16-bit values at {a} and {b} and store the larger one at {c}",
            f"{c} = max({a}, {b}) as signed words",
            f"of the two's complement words {a} and {b} the greater goes to {c}",
            f"store the maximum of the signed words {a} and {b} at {c}",
            f"put the higher one of the signed 16-bit numbers {a} and {b} into {c}",
            f"if the signed word {a} is less than {b} copy {b} to {c}, otherwise copy {a}",
            f"{c} = {a} > {b} ? {a} : {b}, signed 16-bit",
            f"find the larger of the signed words at {a} and {b} and save it to the word {c}",
            f"set the word {c} to {a} if {a} > {b}, else to {b} (signed words)",
            f"the word {c} becomes the higher of the signed values in {a} and {b}",
            f"into {c} put whichever signed word is larger, {a} or {b}",
            f"two signed words are in {a} and {b}; leave their maximum at {c}",
        ],
        ask_test=[
            f"the signed 16-bit maximum of {a} and {b} goes into {c}",
            f"find which signed word is higher, {a} or {b}, and copy it to {c}",
            f"{c} gets the signed word {a}, or {b} if that is larger",
        ],
        cases=d.cases(
            {a: word(x), b: word(y)}
            for x, y in zip(d.edges16(), [*others, *(d.number(0, 0xFFFF) for _ in range(7))], strict=True)
        ),
        after=lambda mem: {c: word(max(mem.word(a), mem.word(b), key=lambda x: signed(x, 16)))},
        references={
            "overflow": f"REP #$20 / LDA {a} / SEC / SBC {b} / BVC .same / EOR #$8000 / .same / BMI "
            f".second / LDA {a} / "
            f"BRA .store / .second / LDA {b} / .store / STA {c} / SEP #$20 / RTS",
            "bias": f"REP #$20 / LDA {b} / EOR #$8000 / STA {c} / LDA {a} / EOR #$8000 / CMP {c} / BCS "
            f".store / LDA {c} / "
            f".store / EOR #$8000 / STA {c} / SEP #$20 / RTS",
        },
    )
