"""The page without a browser: hostile text as HTML, and who may talk to the server, over real HTTP."""

from __future__ import annotations

import http.client
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from urllib.parse import urlencode, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotate_site import TOKEN, Site, graded, site
from hafs.annotate.web import render
from hafs.annotate.web.gate import CSP
from hafs.annotate.web.security import hash_password, verify_password
from hafs_snes.lexer import AsarLexer, looks_like_asm

PIECES = [
    "<script>",
    "</pre>",
    "<img src=x onerror=y>",
    "[a](javascript:b)",
    "![a](http://b)",
    "```",
    "```asm\n",
    "~~~",
    "`",
    "*",
    "_",
    "> ",
    "- ",
    "1. ",
    "# ",
    "|a|b|\n|-|-|\n",
    "&lt;",
    "&#x3c;",
    "\n",
    "\t",
    " ",
    "LDA.b #$00 ; x\n",
    '"',
    "'",
    "\0",
    "\x1b[31m",
    "\u202e",
    "\ud800",
    "<!--",
    "]]>",
    "⟦ESC⟧",
    "<div hx-get=/x>",
    "<svg/onload=a>",
    "<a href='javascript:x'>",
    "{{ 1 }}",
    "</code>",
    "\u2028",
    "<http://a>",
]


class Seen(HTMLParser):
    """The tags and attributes of HTML, and its text."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: set[str] = set()
        self.attributes: set[tuple[str, str]] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {(name, value or "") for name, value in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


@settings(max_examples=100, deadline=None)
@given(st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=8)), max_size=30).map("".join))
def test_no_text_becomes_anything_but_text(text: str) -> None:
    for html in (render.rendered(text), render.raw(text)):
        seen = Seen()
        seen.feed(html)
        assert seen.tags <= render.TAGS
        assert {name for name, _ in seen.attributes} <= {"class", "start"}
        assert all(re.fullmatch(r"[a-z]\w*|\d+", value) for _, value in seen.attributes), seen.attributes
        assert not re.search("[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", seen.text)


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=200))
def test_the_raw_text_is_the_text(text: str) -> None:
    plain = re.sub("[^a-zA-Z0-9<>&\"' \n]", "", text)
    seen = Seen()
    seen.feed(render.raw(plain))
    assert seen.text == plain


@settings(max_examples=50, deadline=None)
@given(*[st.lists(st.sampled_from(["LDA.b #$01", "LDA.w $0E20", "RTS", "", "STA $00 ; x"]), max_size=8)] * 2)
def test_a_diff_holds_both_texts(left: list[str], right: list[str]) -> None:
    lines = render.diff("\n".join(left), "\n".join(right))
    for signs, text in ((" -", left), (" +", right)):
        assert ["".join(p for p, _ in line.parts) for line in lines if line.sign in signs] == (text or [""])


def test_what_changed_in_a_line_is_marked() -> None:
    old, new = render.diff("LDA.w $0E20", "LDA.b $0E20")
    assert (old.sign, [t for t, changed in old.parts if changed]) == ("-", ["w"])
    assert (new.sign, [t for t, changed in new.parts if changed]) == ("+", ["b"])


CODE = """Main:
    REP #$30
    LDA.w !player_state,x   ; load
.loop
    DEX : BPL .loop
    db $01,"text",%1010
    JSL Routine_Sub
    RTS
"""


def test_65816_code_is_coloured_by_what_it_is() -> None:
    tokens = {(str(kind).removeprefix("Token."), text) for kind, text in AsarLexer().get_tokens(CODE)}
    wanted = {
        ("Name.Label", "Main"),
        ("Keyword", "LDA"),
        ("Keyword.Type", "w"),
        ("Name.Variable", "!player_state"),
        ("Comment.Single", "; load"),
        ("Name.Label", ".loop"),
        ("Keyword.Pseudo", "db"),
        ("Literal.String", '"text"'),
        ("Literal.Number", "#$30"),
        ("Literal.Number", "%1010"),
        ("Name", "Routine_Sub"),
    }
    assert wanted <= tokens
    assert not any(kind == "Error" for kind, _ in tokens)
    assert "".join(text for _, text in AsarLexer(stripnl=False).get_tokens(CODE)) == CODE


def test_code_without_a_fence_is_code_and_prose_is_prose() -> None:
    assert looks_like_asm(CODE)
    assert looks_like_asm(
        "LoadPlayerState:\n    LDA.b #$0E20  ; WRONG: immediate mode!\n    STA.b ($00),y\n-   BNE -\n    RTS"
    )
    assert not looks_like_asm("") and not looks_like_asm("And so it is:")
    assert not looks_like_asm("To load the state, use LDA.\nThen and it with the mask.\n")
    assert '<span class="k">LDA</span>' in render.rendered("Foo:\n  LDA.b #$12\n  RTS")
    assert "<em>really</em>" in render.rendered("That is *really* it.")


def test_passwords() -> None:
    kept = hash_password("correct horse")
    assert verify_password("correct horse", kept) and not verify_password("correct hors", kept)
    assert kept != hash_password("correct horse") and "correct" not in kept
    assert not any(
        verify_password("", line) for line in ("", "x", "scrypt:1:1:1::", "scrypt:16384:8:5:!:!", "md5:1:1:1:aa:bb")
    )


@pytest.fixture(scope="module")
def of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("page"), graded(2, 3)) as served:
        yield served


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("guarded"), graded(1, 2), accounts={"ann": hash_password("right")}) as served:
        yield served


Answer = tuple[int, http.client.HTTPMessage, str]
"""Status, headers, text."""


class Client:
    """HTTP by hand, so that every header can be wrong."""

    def __init__(self, of: Site, name: str = "ann") -> None:
        self.host = urlsplit(of.address).netloc
        self.cookie = self.csrf = ""
        if name:
            status, headers, _ = self.get(f"/?token={TOKEN}&name={name}")
            assert status == 200
            self.cookie = headers["set-cookie"].split(";")[0]
            found = re.search('name="csrf" content="(.+?)"', self.get("/")[2])
            assert found
            self.csrf = found[1]

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, None, headers)

    def post(self, path: str, fields: dict[str, str] | None = None, **headers: str) -> Answer:
        own = {
            "Origin": f"http://{self.host}",
            "X-CSRF-Token": self.csrf,
            "Content-Type": "application/x-www-form-urlencoded",
        }
        return self.ask("POST", path, urlencode(fields or {}), {**own, **headers})

    def ask(self, method: str, path: str, body: str | None, headers: dict[str, str]) -> Answer:
        connection = http.client.HTTPConnection(self.host, timeout=30)
        sent = {"Host": self.host, "Cookie": self.cookie, **{k.replace("_", "-"): v for k, v in headers.items()}}
        connection.request(method, path, body, {key: value for key, value in sent.items() if value})
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer.status, answer.headers, text


def test_every_answer_carries_the_headers(of: Site) -> None:
    client = Client(of)
    for path in ("/", "/item", "/static/annotate.js", "/static/htmx-2.0.11.min.js", "/nowhere", "/?token=wrong"):
        _, headers, _ = client.get(path)
        assert headers["content-security-policy"] == CSP and CSP.startswith("default-src 'none';")
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == ("same-origin" if "token" in path else "no-referrer")
    assert "unsafe" not in CSP and "http" not in CSP


def test_the_page_has_no_inline_script_style_or_foreign_address(of: Site) -> None:
    _, _, html = Client(of).get("/")
    assert not re.search(r"<script(?![^>]*\ssrc=\"/static/)|<style|\sstyle=|\son\w+=|https?://", html)


def test_only_the_link_lets_somebody_in(of: Site) -> None:
    stranger = Client(of, name="")
    for path in ("/", "/item", "/stats", "/answer/A?lease=x", "/diff?lease=x&left=A&right=B", "/?token=wrong&name=ann"):
        status, _, text = stranger.get(path)
        assert status == 401 and "grade" not in text
    assert stranger.post("/submit", {"state": "{}"})[0] == 401
    assert stranger.post("/enter", {"name": "ann"})[0] == 401
    _, headers, _ = stranger.get(f"/?token={TOKEN}&name=ann")
    cookie = headers["set-cookie"]
    assert "HttpOnly" in cookie and "samesite=strict" in cookie.lower() and TOKEN not in cookie
    stranger.cookie = cookie.split(";")[0][:-1] + "0"  # its signature changed
    assert stranger.get("/")[0] in (200, 401)
    name, _, value = cookie.split(";")[0].partition("=")
    body, _, signature = value.partition(".")
    for forged in (f"{body}.", body, f"{body}.{signature[::-1]}", f"MTpib2I=.{signature}", ".", "é.é"):
        stranger.cookie = f"{name}={forged}".encode().decode("latin-1")
        assert stranger.get("/")[0] == 401


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "localhost.", "127.0.0.2"]
)
def test_foreign_hosts_are_refused(of: Site, host: str) -> None:
    assert Client(of).ask("GET", "/", None, {"Host": host or " "})[0] in (400, 421)


def test_requests_of_other_pages_are_refused(of: Site) -> None:
    client = Client(of)
    for origin in ("http://evil.example", "null", f"http://{client.host}.evil.example", ""):
        assert client.post("/undo", Origin=origin)[0] == 403
    assert client.post("/undo", **{"X-CSRF-Token": ""})[0] == 403
    assert client.post("/undo", **{"X-CSRF-Token": Client(of, "bob").csrf})[0] == 403
    assert client.post("/undo")[0] == 409  # let in, and nothing to take back


def test_what_cannot_be_read_is_refused_in_words(of: Site) -> None:
    client = Client(of)
    found = re.search('data-lease="(.+?)"', client.get("/")[2])
    assert found
    lease = found[1]
    for state in ("", "[]", "{}", '{"lease": 1}', f'{{"lease": "{lease}", "answer": "ranked", "more": 1}}'):
        status, _, text = client.post("/submit", {"state": state})
        assert status == 422 and "cannot be read" in text
    for tiers in ('[["A"]]', '[["A"],["A"]]', '[["A"],["Z"]]', '[["A"],[]]'):
        status, _, text = client.post(
            "/submit", {"state": f'{{"lease": "{lease}", "answer": "ranked", "tiers": {tiers}}}'}
        )
        assert status == 409 and text
    assert client.post("/submit", {"state": '{"lease": "other", "answer": "skipped"}'})[0] == 409
    assert client.post("/draft", {"lease": lease, "state": "[1]"})[0] == 422
    assert client.post("/check", {"lease": lease, "label": "A"})[0] == 409  # checks are off
    assert client.get(f"/diff?lease={lease}&left=A&right=Z")[0] == 404
    assert client.post("/draft", {"lease": lease, "state": "x" * 2_100_000})[0] == 413
    assert of.annotations() == []


def test_accounts(guarded: Site) -> None:
    client = Client(guarded, name="")
    assert client.get(f"/?token={TOKEN}&name=ann")[0] == 401  # the link is not enough
    assert client.post("/enter", {"name": "ann", "password": "wrong"})[0] == 401
    assert client.post("/enter", {"name": "ann", "password": "right"}, Origin="http://evil.example")[0] == 403
    status, headers, _ = client.post("/enter", {"name": "ann", "password": "right"})
    assert status == 200 and "HttpOnly" in headers["set-cookie"]
    for _ in range(5):
        assert client.post("/enter", {"name": "bob", "password": "x"})[0] == 401
    assert client.post("/enter", {"name": "bob", "password": "x"})[0] == 429


def test_the_name_screen_is_filled_in_and_focused() -> None:
    from hafs.annotate.web.app import _Pages

    pages = _Pages(None)  # type: ignore[arg-type]
    asked = bytes(pages.page("enter.html", state="name", login='a"b').body).decode()
    assert "autofocus" in asked and 'value="a&#34;b"' in asked
    assert "autofocus" in bytes(pages.page("enter.html", state="login", login="ann").body).decode()
