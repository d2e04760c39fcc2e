"use strict";
// What the browser does: it keeps the answer a person is making (`now`), shows it, and sends it. The server makes all HTML.

const $ = (selector, root = document) => root.querySelector(selector);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const headers = { "X-CSRF-Token": $("meta[name=csrf]").content };
const ORDINALS = ["1st", "2nd", "3rd", "4th", "5th", "6th", "7th", "8th"];
const EMPTY = { tiers: [], confidence: "", value: null, note: "", edited: null, edited_of: "", seconds: 0 };

let item = null;      // the element of the item in hand
let now = null;       // the answer being made; also the draft that the server keeps
let current = "A";    // the card that keys act on
let joining = false;  // `=` was pressed: the next card placed ties with the last
let busy = false;     // an answer is on its way
let since = 0;        // when the running stretch of looking began
let waiting = 0;      // the timer of the draft that is not with the server yet

// ---- the ranking: tiers of letters, best first

const letters = () => all(".card", item).map((card) => card.dataset.label);
const mode = () => item.dataset.mode;
const tierOf = (label) => now.tiers.findIndex((tier) => tier.includes(label));
const placed = () => now.tiers.flat();

const only = (wanted) => now.tiers.map((tier) => tier.filter(wanted)).filter((tier) => tier.length);
const remove = (label) => { now.tiers = only((other) => other !== label); };

// Puts a card where `target` says: a tie with another letter, or before or after that letter's tier.
function put(label, target) {
  remove(label);
  const at = target.chip ? tierOf(target.chip.dataset.label) : 0;
  if (target.where === "onto") now.tiers[at].push(label);
  else now.tiers.splice(target.where === "after" ? at + 1 : at, 0, [label]);
}

function place(label) {
  if (mode() === "ab") now.tiers = [[label], letters().filter((other) => other !== label)];
  else if (tierOf(label) >= 0) remove(label);
  else if (joining && now.tiers.length) now.tiers.at(-1).push(label);
  else now.tiers.push([label]);
  joining = false;
}

// One step up (-1) or down (+1): out of a tie into a tier of its own, or into a tie with the next tier.
function move(label, step) {
  const at = tierOf(label);
  if (at < 0) return place(label);
  if (now.tiers[at].length > 1) {
    remove(label);
    now.tiers.splice(step < 0 ? at : at + 1, 0, [label]);
  } else if (now.tiers[at + step]) {
    now.tiers[at + step].push(label);
    now.tiers.splice(at, 1);
  }
}

// Ties two neighbouring tiers, or parts a tier before one of its letters.
function toggle(label) {
  const at = tierOf(label);
  const inside = now.tiers[at].indexOf(label);
  if (inside > 0) now.tiers.splice(at, 1, now.tiers[at].slice(0, inside), now.tiers[at].slice(inside));
  else if (at > 0) now.tiers.splice(at - 1, 2, [...now.tiers[at - 1], ...now.tiers[at]]);
}

function equals() {
  if (mode() === "ab") now.tiers = [letters()];
  else if (placed().length < letters().length) return void (joining = now.tiers.length > 0 && !joining);
  else toggle(tierOf(current) === 0 && now.tiers[0][0] === current ? placed()[1] : current);
}
const words = () => now.tiers.map((tier) => tier.join(" equal to ")).join(", then ");

// ---- showing it

function element(tag, className, textContent, data = {}) {
  const made = Object.assign(document.createElement(tag), { className, textContent });
  Object.assign(made.dataset, data);
  return made;
}

const chip = (label, className) => element("span", className, label, { do: "chip", label, grip: label });

function sign(before, label, tied) {
  const said = tied ? `${before} and ${label} are equal: part them` : `${before} is better than ${label}: make them equal`;
  const made = element("button", "sign", tied ? "=" : "›", { do: "toggle", label });
  return Object.assign(made, { type: "button", tabIndex: -1, ariaLabel: said });
}

function show() {
  if ($("#strip")) showRanking($("#strip"));
  for (const input of all("input[type=radio]", item)) input.checked = String(now[input.name]) === input.value;
  for (const card of all(".card", item)) {
    const edited = now.edited !== null && now.edited_of === card.dataset.label;
    card.classList.toggle("edited", edited);
    $("[data-do=edit] span", card).textContent = edited ? "Improved" : "Improve";
  }
}

function showRanking(strip) {
  const chips = [];
  for (const [i, label] of placed().entries()) {
    if (i) chips.push(sign(placed()[i - 1], label, tierOf(placed()[i - 1]) === tierOf(label)));
    chips.push(chip(label, "chip"));
  }
  if (joining) chips.push(element("span", "sign", "="));
  strip.replaceChildren(element("span", "end", "best"), ...chips, element("span", "end", "worst"));
  const left = letters().filter((label) => tierOf(label) < 0);
  $("#pool").replaceChildren(...left.map((label) => chip(label, "chip free")));
  const hint = chips.length ? "left out" : mode() === "ab" ? "choose one" : "place from best to worst";
  $("#pool-name").textContent = left.length ? hint : "";
  for (const card of all(".card", item)) {
    const at = tierOf(card.dataset.label);
    const tied = at >= 0 && now.tiers[at].length > 1;
    const rank = at < 0 ? "" : ORDINALS[now.tiers.slice(0, at).flat().length] + (tied ? ", tied" : "");
    card.classList.toggle("placed", at >= 0);
    $(".place", card).textContent = rank;
    $(".put span", card).textContent = mode() === "ab" ? "Choose" : rank ? "Take out" : "Place";
  }
}

const say = (text) => { $("#live").textContent = text; };
const alarm = (text) => Object.assign($("#alert"), { textContent: text, hidden: !text });

// After every change: show it, say it, keep it. What was wrong before the change may no longer be.
function changed(text) {
  alarm("");
  show();
  say(text ?? (now.tiers.length ? words() : "Nothing is placed."));
  clearTimeout(waiting);
  waiting = setTimeout(keep, 250);
  sessionStorage.setItem("draft", JSON.stringify([item.dataset.lease, now]));  // a reload is faster than the server
}

// Makes a card the one that keys act on; only going there on purpose scrolls.
function focusCard(label, scroll = false) {
  if (!letters().includes(label)) return;
  current = label;
  for (const card of all(".card", item)) {
    const here = card.dataset.label === label;
    card.tabIndex = here ? 0 : -1;
    for (const button of all("button", card)) button.tabIndex = here ? 0 : -1;
    if (here && !card.contains(document.activeElement)) card.focus({ preventScroll: !scroll });
  }
}

function view(raw) {
  localStorage.setItem("raw", raw ? "1" : "");
  for (const text of all(".rendered")) text.hidden = raw;
  for (const text of all(".raw")) text.hidden = !raw;
  $("[data-do=view]").setAttribute("aria-pressed", raw);
  // What scrolls must be reachable by keys.
  for (const box of all(".answer, .answer pre, .prompt pre")) {
    box.toggleAttribute("tabindex", false);
    if (box.scrollWidth > box.clientWidth || box.scrollHeight > box.clientHeight) box.tabIndex = 0;
  }
}

// ---- time, drafts and answers

function pause() {
  if (since) now.seconds = Math.round(10 * (now.seconds + Math.min((performance.now() - since) / 1000, 300))) / 10;
  since = document.hidden ? 0 : performance.now();
}

async function keep() {
  const mine = waiting;
  if (!item) return;
  pause();
  const body = new URLSearchParams({ lease: item.dataset.lease, state: JSON.stringify(now) });
  try {
    const answer = await fetch("/draft", { method: "POST", headers, body, keepalive: body.toString().length < 60000 });
    if (!answer.ok) alarm(await answer.text());  // a draft that was kept says nothing of an alarm raised meanwhile
    if (waiting === mine) waiting = 0;
  } catch {
    alarm("The server does not answer. What you do is kept in this page.");
  }
}

const idle = (is) => { document.body.classList.toggle("busy", busy = !is); };

async function ask(method, path, values = {}) {
  if (busy) return;
  idle(false);
  if (waiting) await keep();
  htmx.ajax(method, path, { target: "#main", swap: "innerHTML", values, headers }).catch(() => {});  // sendError tells
}

function submit(answer) {
  if (busy || !item) return;
  const rating = mode() === "rate";
  if (answer === "ranked" && (rating ? !now.value : placed().length < 2))
    return alarm(rating ? "Give a grade from 1 to 4." : "Place at least two answers, or say all bad, cannot judge or skip.");
  waiting = clearTimeout(waiting);
  pause();
  const sent = { ...EMPTY, ...now, lease: item.dataset.lease, answer, value: now.value && Number(now.value) };
  if (answer !== "ranked") Object.assign(sent, { tiers: [], value: null, confidence: "" });
  ask("POST", "/submit", { state: JSON.stringify(sent) });
}

function begin() {
  idle(true);
  item = $("#item");
  joining = false;
  since = performance.now();
  if (!item) return say("Done.");
  const [lease, own] = JSON.parse(sessionStorage.getItem("draft") ?? "[]");
  now = { ...EMPTY, ...(lease === item.dataset.lease ? own : JSON.parse(item.dataset.start)) };
  now.tiers = only((label) => letters().includes(label));
  show();
  view(localStorage.getItem("raw") === "1");
  window.scrollTo(0, 0);
  focusCard(letters()[0]);
  say(`Prompt ${item.dataset.position} of ${item.dataset.total}. ${letters().length} answers.`);
}

// ---- what buttons and keys do

const actions = {
  place: (label) => { place(label); changed(); focusCard(label); },
  chip: (label) => (tierOf(label) < 0 || mode() === "ab" ? actions.place(label) : focusCard(label)),
  toggle: (label) => { toggle(label); changed(); focusCard(label); },
  view: () => view(localStorage.getItem("raw") !== "1"),
  help: () => $("#help").showModal(),
  stats: () => { htmx.ajax("GET", "/stats", { target: "#figures-body", swap: "innerHTML" }); $("#figures").showModal(); },
  leave: () => ask("POST", "/leave"),
  undo: () => ask("POST", "/undo"),
  again: () => ask("GET", "/item"),
  flag: () => { $("#note").value = now.note; $("#flag").showModal(); },
  edit: async (label) => {
    focusCard(label);
    const mine = now.edited !== null && now.edited_of === label;
    const answer = mine || await fetch(`/answer/${label}?exact=1&lease=${encodeURIComponent(item.dataset.lease)}`);
    if (!mine && !answer.ok) return alarm(await answer.text());
    $("#better").value = mine ? now.edited : await answer.text();
    $("#edit").showModal();
  },
  diff: (label) => {
    if (letters().length < 2) return;
    for (const pick of [$("#left"), $("#right")]) pick.replaceChildren(...letters().map((other) => new Option(other)));
    $("#left").value = label;
    $("#right").value = [...placed(), ...letters()].find((other) => other !== label);
    compare();
    $("#compare").showModal();
  },
  check: (label) => {
    const values = { lease: item.dataset.lease, label };
    htmx.ajax("POST", "/check", { target: `#checked-${label}`, swap: "innerHTML", values, headers });
  },
};
for (const answer of ["all_bad", "cannot_judge", "skipped"]) actions[answer] = () => submit(answer);

// What closing a dialog with one of its buttons does.
const closed = {
  "flag ok": () => { now.note = $("#note").value; submit("flagged"); },
  "edit ok": () => { Object.assign(now, { edited: $("#better").value, edited_of: current }); changed("Your better answer is kept."); },
  "edit drop": () => { Object.assign(now, { edited: null, edited_of: "" }); changed("The change is dropped."); },
};

function compare() {
  const query = new URLSearchParams({ lease: item.dataset.lease, left: $("#left").value, right: $("#right").value });
  htmx.ajax("GET", `/diff?${query}`, { target: "#diff", swap: "innerHTML" });
}

const KEYS = { a: "all_bad", c: "cannot_judge", s: "skipped", f: "flag", u: "undo", e: "edit", d: "diff", r: "view", "?": "help" };

function key(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || $("dialog[open]")) return;
  if (event.target.matches("textarea, select, input:not([type=radio])")) return;
  const single = $("#single-keys").checked;
  if (event.key === "Enter" && item && !event.target.closest("button, a, summary")) submit("ranked");
  else if (single && KEYS[event.key] && (item || ["undo", "help"].includes(KEYS[event.key]))) {
    if (KEYS[event.key] !== "all_bad" || mode() !== "rate") actions[KEYS[event.key]](current);
  } else if (!item || !itemKey(event, single)) return;
  event.preventDefault();
}

// Keys of the item in hand; says whether it was one.
function itemKey(event, single) {
  const labels = letters();
  const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -1, ArrowDown: 1 }[event.key];
  const sideways = /Left|Right/.test(event.key);
  const inCard = event.target.closest(".card") || event.target === document.body;
  const rating = mode() === "rate";
  if (step && (!inCard || event.target.matches(".answer, .answer pre"))) return false;
  if (step && sideways) focusCard(labels[(labels.indexOf(current) + step + labels.length) % labels.length], true);
  else if (step && !rating) { move(current, step); changed(); }
  else if (event.key === "Backspace" && !rating && now.tiers.length) { remove(placed().at(-1)); joining = false; changed(); }
  else if (!single) return false;
  else if (rating && /^[1-4]$/.test(event.key)) { now.value = Number(event.key); changed(`Grade ${event.key}`); }
  else if (!rating && /^[1-8]$/.test(event.key) && labels[event.key - 1]) actions.place(labels[event.key - 1]);
  else if (!rating && event.key === "=") { equals(); changed(joining ? `${words()}, equal to` : undefined); }
  else if (!rating && /^[-+]$/.test(event.key)) {
    now.confidence = event.key === "-" ? "slight" : "clear";
    changed(`${now.confidence} preference`);
  } else return false;
  return true;
}

function click(event) {
  if (dragged) return;
  const button = event.target.closest("[data-do]");
  const card = event.target.closest(".card");
  if (button) return void actions[button.dataset.do]?.(button.dataset.label ?? card?.dataset.label ?? current);
  if (!card || !item || event.target.closest("a, summary") || !getSelection().isCollapsed) return;
  const label = card.dataset.label;
  focusCard(label);
  if (mode() === "ab" || (mode() !== "rate" && tierOf(label) < 0)) actions.place(label);
}

// ---- dragging a letter, or a card by its head

let drag = null;      // what is being dragged
let dragged = false;  // the click that follows a drag is none

function grab({ target, button, pointerId: id, clientX: x, clientY: y }) {
  const from = target.closest("[data-grip]");
  dragged = false;
  if (!from || button !== 0 || target.closest("button") || mode() === "ab") return;
  drag = { label: from.dataset.grip, chip: from.matches(".chip"), id, x, y, on: false };
}

function pull(event) {
  if (!drag || event.pointerId !== drag.id) return;
  if (!drag.on && Math.hypot(event.clientX - drag.x, event.clientY - drag.y) < 6) return;
  drag.on = true;
  Object.assign($("#ghost"), { textContent: drag.label, hidden: false });
  $("#ghost").style.transform = `translate(${event.clientX}px, ${event.clientY}px)`;
  mark(aim(event));
}

// Where a letter would land: beside or onto the nearest chip of the strip; null outside.
function aim({ clientX: x, clientY: y }) {
  const box = $(".ranking").getBoundingClientRect();
  if (x < box.left - 20 || x > box.right + 20 || y < box.top - 40 || y > box.bottom + 40) return null;
  const [near] = all("#strip .chip").filter((other) => other.dataset.label !== drag.label).map((other) => {
    const { left, top, width, height } = other.getBoundingClientRect();
    return { chip: other, dx: x - left - width / 2, dy: y - top - height / 2, reach: 0.32 * width };
  }).sort((a, b) => Math.hypot(a.dx, 3 * a.dy) - Math.hypot(b.dx, 3 * b.dy));
  if (!near) return { where: "first" };
  return { chip: near.chip, where: Math.abs(near.dx) < near.reach ? "onto" : near.dx < 0 ? "before" : "after" };
}

function mark(target) {
  for (const other of all("#strip .chip")) other.className = `chip ${other === target?.chip ? target.where : ""}`;
  $("#strip").classList.toggle("over", target !== null);
}

function drop(event) {
  if (!drag || event.pointerId !== drag.id) return;
  const { label, on, chip: out } = drag;
  const target = on && event.type === "pointerup" ? aim(event) : null;
  drag = null;
  if (!on) return;
  $("#ghost").hidden = true;
  mark(null);
  dragged = true;
  setTimeout(() => { dragged = false; });
  if (target) put(label, target);
  else if (out && event.type === "pointerup") remove(label);
  changed();
  focusCard(label);
}

// ---- wiring

const listeners = { keydown: key, click, pointerdown: grab, pointermove: pull, pointerup: drop, pointercancel: drop };
for (const [name, listener] of Object.entries(listeners)) document.addEventListener(name, listener);
document.addEventListener("focusin", ({ target }) => {
  if (target.closest(".card") && target.closest(".card").dataset.label !== current) focusCard(target.closest(".card").dataset.label);
});
document.addEventListener("submit", (event) => {
  if (event.target.id === "desk") { event.preventDefault(); submit("ranked"); }
});
document.addEventListener("change", (event) => {
  if (event.target.closest("#compare")) return compare();
  if (event.target.id === "single-keys") return localStorage.setItem("keys", event.target.checked ? "" : "off");
  if (event.target.type !== "radio") return;
  now[event.target.name] = event.target.value;
  changed(event.target.value);
});
for (const dialog of all("dialog")) {
  dialog.addEventListener("cancel", () => { dialog.returnValue = ""; });
  dialog.addEventListener("close", () => closed[`${dialog.id} ${dialog.returnValue}`]?.());
}
$("#single-keys").checked = localStorage.getItem("keys") !== "off";
document.addEventListener("visibilitychange", () => { if (now) pause(); if (document.hidden && waiting) keep(); });
addEventListener("pagehide", () => { if (waiting) keep(); });
document.addEventListener("htmx:afterSwap", (event) => {
  if (event.detail.target.id === "main") { alarm(""); begin(); }
});
document.addEventListener("htmx:responseError", ({ detail: { xhr, pathInfo } }) => {
  idle(true);
  const tell = () => alarm(xhr.responseText || `The server says ${xhr.status}.`);
  if (xhr.status !== 409 || pathInfo.requestPath !== "/submit") return tell();
  document.addEventListener("htmx:afterSettle", tell, { once: true });  // somebody else has it: go on, and say so
  ask("GET", "/item");
});
document.addEventListener("htmx:sendError", () => {
  idle(true);
  alarm("The server does not answer. Your answer is kept in this page: send it again when the server runs.");
});
begin();
