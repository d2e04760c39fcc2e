"use strict";
// The workbench's part in the browser: it shows what has changed, sends what a person decides, and takes keys.

const $ = (selector, from = document) => from.querySelector(selector);
const all = (selector, from = document) => [...from.querySelectorAll(selector)];
const headers = { "X-CSRF-Token": $("meta[name=csrf]").content };
const say = (text) => { $("#live").textContent = text; };
const alarm = (text) => Object.assign($("#alert"), { textContent: text, hidden: !text });

// ---- what has changed

let busy = false;    // a page is on its way
let missed = false;  // something changed meanwhile
let lost = false;    // the server did not answer

function held() {
  const at = document.activeElement;
  return document.hidden || Boolean($("dialog[open]")) || Boolean(at?.matches("input, select, textarea")) || !getSelection().isCollapsed;
}

async function renew(now = false) {
  if (!now && (!$("#main").dataset.live || held())) { missed = true; return; }
  if (busy) { missed = true; return; }
  busy = true;
  missed = false;
  const place = placeOf(document.activeElement);
  await htmx.ajax("GET", location.pathname + location.search, { target: "#main", swap: "innerHTML" }).catch(() => {});
  busy = false;
  if (place) all(place.what)[place.at]?.focus({ preventScroll: true });
  if (missed) setTimeout(renew, 1000);
}

// Where the focus is, in words that hold on the page as it is afterwards.
function placeOf(at) {
  if (!at || !$("#main").contains(at)) return null;
  const what = at.dataset.id ? `[data-id="${CSS.escape(at.dataset.id)}"]` : at.id ? `#${CSS.escape(at.id)}` : `main ${at.tagName}`;
  return { what, at: all(what).indexOf(at) };
}

function listen() {
  const events = new EventSource("/events");
  events.addEventListener("changed", () => { if (lost) alarm(""); lost = false; renew(); });
  events.onerror = () => {
    lost = true;
    alarm("The server does not answer. This page goes on by itself when `hafs open` runs again.");
    if (events.readyState === EventSource.CLOSED) setTimeout(listen, 2000);
  };
  addEventListener("pagehide", () => events.close(), { once: true });
}

// ---- what a person decides

async function act(what, values) {
  try {
    const answer = await fetch(`/do/${what}`, { method: "POST", headers, body: new URLSearchParams(values) });
    const text = await answer.text();
    if (answer.ok && text.startsWith("/")) return location.assign(text);
    alarm(text);
    say(text);
    if (answer.ok) await renew(true);
    return answer.ok;
  } catch {
    alarm("The server does not answer: nothing was changed. Try again when it runs.");
    return false;
  }
}

const actions = {
  stop: ({ id }) => act("stop", { id }),
  forget: ({ id }) => act("forget", { id }),
  unmark: ({ id }) => act("unmark", { id }),
  cancel: () => $("#why").close(""),
  copy: async () => {
    getSelection().selectAllChildren($("#command"));
    await navigator.clipboard?.writeText($("#command").textContent).catch(() => {});
    say("The command is copied.");
  },
};

// ---- keys of the list

const rows = () => all(".rows tbody tr");
let last = "";  // the row that somebody was on, also while the list is shown anew
const current = () => document.activeElement?.closest?.(".rows tr") ?? $(`.rows tr[data-candidate="${CSS.escape(last)}"]`);

function go(step) {
  const list = rows();
  const at = list.indexOf(current());
  const next = list[Math.max(0, Math.min(list.length - 1, at < 0 ? 0 : at + step))];
  if (!next) return;
  $("th a", next).focus();
  next.scrollIntoView({ block: "nearest" });
}

async function markRow(kind, reason = "") {
  const row = current();
  if (!row) return alarm("Go to a row first: j and k.");
  const at = rows().indexOf(row);
  await act("mark", { kind, reason, prompt: row.dataset.prompt, candidate: kind === "person" ? "" : row.dataset.candidate });
  $("th a", rows()[at] ?? document)?.focus();
}

let leaving = null;  // the row that is being left out
const KEYS = {
  j: () => go(1),
  k: () => go(-1),
  n: () => $("#next")?.click(),
  "/": () => $("[name=text]")?.focus(),
  f: () => markRow("flag"),
  p: () => markRow("person"),
  x: () => { leaving = current(); if (leaving) $("#why").showModal(); else alarm("Go to a row first: j and k."); },
};

function key(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || $("dialog[open]")) return;
  if (event.target.matches("textarea, select, input") || !$(".rows, .filters") || !KEYS[event.key]) return;
  event.preventDefault();
  KEYS[event.key]();
}

// ---- wiring

document.addEventListener("keydown", key);
document.addEventListener("click", ({ target }) => {
  const button = target.closest("[data-do]");
  if (button) actions[button.dataset.do]?.(button.dataset);
});
document.addEventListener("submit", (event) => {
  const { target: form, submitter } = event;
  if (!form.dataset.action) return;
  event.preventDefault();
  const values = new FormData(form, submitter);
  act(form.dataset.action, values);
});
document.addEventListener("close", ({ target }) => {
  if (target.id !== "why" || target.returnValue !== "ok" || !leaving) return;
  $("th a", leaving).focus();
  markRow("left out", $("#reason").value);
  $("#reason").value = "";
  target.returnValue = "";
}, true);
document.addEventListener("focusin", ({ target }) => { last = target.closest(".rows tr")?.dataset.candidate ?? last; });
document.addEventListener("visibilitychange", () => { if (!document.hidden && missed) renew(); });
document.addEventListener("focusout", () => setTimeout(() => { if (missed && !busy) renew(); }, 300));
document.addEventListener("htmx:responseError", ({ detail: { xhr } }) => {
  if (xhr.status === 401) location.reload(); else alarm(xhr.responseText || `The server says ${xhr.status}.`);
});
listen();
