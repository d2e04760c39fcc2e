"""Text that would run in a browser, as a candidate, a prompt, a judge's reason, a model's name: the page of annotation,
the report and the comparison in a real Chromium. Nothing of it runs, nothing is fetched from elsewhere."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from catalogue import Fault, Outcome

RUN = "window.ran=1"
TEXTS = {
    "a script": f"<script>{RUN}</script>",
    "an image": f"<img src=x onerror={RUN}>",
    "an svg": f"<svg onload={RUN}><animate onbegin={RUN} attributeName=x dur=1s>",
    "a frame": f"<iframe srcdoc='<script>parent.{RUN}</script>'></iframe><iframe src=javascript:parent.{RUN}></iframe>",
    "a style": "<style>@import url(http://evil.example/a)</style><link rel=stylesheet href=http://evil.example/b>",
    "a base": "<base href=http://evil.example/><a href=x>y</a>",
    "a refresh": "<meta http-equiv=refresh content='0;url=http://evil.example/'>",
    "a form": f"<form action=http://evil.example><input autofocus onfocus={RUN}></form>",
    "the end of a text area": f"</textarea></title></style></script><script>{RUN}</script>",
    "the end of code": f'```"><script>{RUN}</script>\n</code></pre><script>{RUN}</script>\n```',
    "the end of data": f"</script><script>{RUN}</script><!--",
    "Markdown links": f"[x](javascript:{RUN}) ![x](http://evil.example/c.png) <javascript:{RUN}>",
    "Markdown with HTML": f"**<b onmouseover={RUN}>x</b>** <details open ontoggle={RUN}>",
    "data links": f"[x](data:text/html,<script>parent.{RUN}</script>)",
    "attributes": f"' onmouseover='{RUN}' x=' \" onfocus=\"{RUN}\" autofocus tabindex=0 x=\"",
    "a template": "{{ 7*7 }} {% raw %} ${7*7} <%= 7*7 %>",
    "hx": f"<div hx-get=/undo hx-trigger=load hx-on:load={RUN} data-hx-get=/undo>",
    "maths": f"<math><mtext><table><mglyph><style><img src=x onerror={RUN}>",
    "a mutation": f"<noscript><p title='</noscript><img src=x onerror={RUN}>'>",
    "a NUL in a tag": f"<scr\0ipt>{RUN}</scr\0ipt><img/src=x\0 onerror={RUN}>",
    "UTF-7": f"+ADw-script+AD4-{RUN}+ADw-/script+AD4-",
    "an object": f"<object data=javascript:{RUN}></object><embed src=javascript:{RUN}>",
    "a button": f"<button popovertarget=x onclick={RUN} autofocus>y</button><div popover id=x onbeforetoggle={RUN}>",
    "a custom element": f"<x-y onfocus={RUN} tabindex=0 autofocus contenteditable>",
    "entities": f"&lt;script&gt;{RUN}&lt;/script&gt;&#x3c;img src=x onerror={RUN}&#x3e;",
}

SHORT = 25
FAULTS = [Fault(f"{where}: {name}", f"{where}|{name}") for where in ("page", "report") for name in TEXTS]


def outcomes(faults: Sequence[Fault], quick: bool = False) -> Iterator[Outcome]:
    """Each text on each kind of page; without a Chromium nothing is tried, and that is no fault survived."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        print("pages: there is no Chromium here: left out", flush=True)
        return
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        try:
            for where in ("page", "report"):
                names = [f.attack.partition("|")[2] for f in faults if f.attack.startswith(where)]
                if names:
                    yield from (on_page if where == "page" else in_report)(browser, names)
        finally:
            browser.close()


def watched(browser: Any, address: str, own: str) -> tuple[Any, list[str]]:
    """A page with the list of what it asks of others than `own`."""
    page, asked = browser.new_page(), []
    page.on("request", lambda r: None if r.url.startswith((own, "data:", "blob:", "about:")) else asked.append(r.url))
    page.on("dialog", lambda d: (asked.append("dialog"), d.dismiss()))
    page.goto(address)
    return page, asked


def looked(page: Any, asked: list[str], name: str) -> Outcome:
    """What came of a text on a page; elements with handlers count as run."""
    page.keyboard.press("Tab")
    page.wait_for_timeout(50)
    ran = page.evaluate("window.ran === 1")
    odd = page.evaluate(
        "[...document.querySelectorAll('*')].filter(e => [...e.attributes].some(a => /^on|^hx-on/.test(a.name)"
        " && /window.ran/.test(a.value)) || (e.tagName === 'SCRIPT' && /window.ran=1/.test(e.textContent)"
        " && !e.type.includes('json')) || ['IFRAME','OBJECT','EMBED','BASE'].includes(e.tagName)).length"
    )
    return Outcome(name, forged=bool(ran), leaked=bool(asked), lost=bool(odd), note=f"{asked[:3]} {odd} odd elements")


def on_page(browser: Any, names: Sequence[str]) -> Iterator[Outcome]:
    """As prompt and candidates on the annotation page, plain and raw."""
    from annotate_site import LINK, site

    for name in names:
        text = TEXTS[name]
        with (
            tempfile.TemporaryDirectory() as folder,
            site(Path(folder), [[text, f"other {text}"]], prompt=lambda i, t=text: f"{i} {t}") as of,
        ):
            page, asked = watched(browser, of.address + LINK, of.address)
            page.wait_for_selector(".card")
            page.keyboard.press("r")
            yield looked(page, asked, f"page: {name}")
            page.close()


def in_report(browser: Any, names: Sequence[str]) -> Iterator[Outcome]:
    """As prompts, answers, causes, names and settings of a report."""
    from hafs.report import write_report
    from test_report import report

    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            html, _ = write_report(report(TEXTS[name]), Path(folder, "report.html"))
            page, asked = watched(browser, html.as_uri(), html.as_uri())
            yield looked(page, asked, f"report: {name}")
            page.close()
