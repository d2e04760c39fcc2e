"use strict";
// What the browser does: it keeps the answer a person is making (`now`), shows it, and sends it. The server makes all HTML.

const $ = (selector, root = document) => root.querySelector(selector);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const csrf = $("meta[name=csrf]").content;
const headers = { "X-CSRF-Token": csrf };
const ordinal = (n) => ["1st", "2nd", "3rd", "4th", "5th", "6th", "7th", "8th"][n - 1];
const EMPTY = { tiers: [], confidence: "", value: null, note: "", edited: null, edited_of: "", seconds: 0 };

let item = null;      // the element of the item in hand
let now = null;       // the answer being made; also the draft that the server keeps
let current = "A";    // the card that keys act on
let joining = false;  // `=` was pressed: the next card placed ties with the last
let busy = false;     // an answer is on its way
let since = 0;        // when the running stretch of looking began
let waiting = 0;      // the timer of the next draft

// ---- the ranking: tiers of letters, best first

const letters = () => all(".card", item).map((card) => card.dataset.label);
const mode = () => item.dataset.mode;
const tierOf = (label) => now.tiers.findIndex((tier) => tier.includes(label));
const placed = () => now.tiers.flat();

function remove(label) {
  now.tiers = now.tiers.map((tier) => tier.filter((other) => other !== label)).filter((tier) => tier.length);
}

// Puts a card where `target` says: a tie with another letter, or before or after that letter's tier.
function put(label, target) {
  remove(label);
  const at = target.chip ? tierOf(target.chip.dataset.label) : 0;
  if (target.where === "onto") now.tiers[at].push(label);
  else now.tiers.splice(target.where === "after" ? at + 1 : at, 0, [label]);
}

function place(label) {
  if (mode() === "ab") {
    now.tiers = [[label], letters().filter((other) => other !== label)];
  } else if (tierOf(label) >= 0) {
    remove(label);
  } else if (joining && now.tiers.length) {
    now.tiers.at(-1).push(label);
  } else {
    now.tiers.push([label]);
  }
  joining = false;
}

// One step up (-1) or down (+1): out of a tie into a tier of its own, or into a tie with the next tier.
function move(label, step) {
  const at = tierOf(label);
  if (at < 0) return place(label);
  const tier = now.tiers[at];
  if (tier.length > 1) {
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

const words = () => now.tiers.map((tier) => tier.join(" = ")).join(" › ");

// ---- showing it

function element(tag, className, text, data = {}) {
  const made = Object.assign(document.createElement(tag), { className, textContent: text });
  Object.assign(made.dataset, data);
  return made;
}

function show() {
  const strip = $("#strip");
  if (strip) showRanking(strip);
  for (const input of all("input[type=radio]", item)) input.checked = String(now[input.name]) === input.value;
  for (const card of all(".card", item)) {
    const edited = now.edited !== null && now.edited_of === card.dataset.label;
    card.classList.toggle("edited", edited);
    $("[data-do=edit] span", card).textContent = edited ? "Improved" : "Improve";
  }
}

function chip(label, className) {
  return element("span", className, label, { do: "chip", label, grip: label });
}

function sign(before, label, tied) {
  const made = element("button", "sign", tied ? "=" : "›", { do: "toggle", label });
  made.type = "button";
  made.tabIndex = -1;
  made.setAttribute("aria-label", tied ? `${before} and ${label} are equal: part them` : `${before} is better than ${label}: make them equal`);
  return made;
}

function showRanking(strip) {
  const chips = [];
  let before = null;
  for (const tier of now.tiers) {
    for (const label of tier) {
      if (before) chips.push(sign(before, label, label !== tier[0]));
      chips.push(chip(label, "chip"));
      before = label;
    }
  }
  if (joining) chips.push(element("span", "sign", "="));
  strip.replaceChildren(element("span", "end", "best"), ...chips, element("span", "end", "worst"));
  const left = letters().filter((label) => tierOf(label) < 0);
  $("#pool").replaceChildren(...left.map((label) => chip(label, "chip free")));
  $("#pool-name").textContent = left.length ? (before ? "left out" : mode() === "ab" ? "choose one" : "place from best to worst") : "";
  for (const card of all(".card", item)) {
    const at = tierOf(card.dataset.label);
    const tied = at >= 0 && now.tiers[at].length > 1;
    const rank = at < 0 ? "" : ordinal(now.tiers.slice(0, at).flat().length + 1) + (tied ? ", tied" : "");
    card.classList.toggle("placed", at >= 0);
    $(".place", card).textContent = rank;
    $(".put span", card).textContent = mode() === "ab" ? "Choose" : rank ? "Take out" : "Place";
  }
}

const say = (text) => { $("#live").textContent = text; };

function alarm(text) {
  $("#alert").textContent = text;
  $("#alert").hidden = !text;
}

// After every change: show it, say it, keep it.
function changed(text) {
  show();
  say(text ?? (now.tiers.length ? words() : "Nothing is placed."));
  clearTimeout(waiting);
  waiting = setTimeout(keep, 250);
}

function focusCard(label) {
  if (!letters().includes(label)) return;
  current = label;
  for (const card of all(".card", item)) {
    const here = card.dataset.label === label;
    card.tabIndex = here ? 0 : -1;
    for (const button of all("button", card)) button.tabIndex = here ? 0 : -1;
    if (here && !card.contains(document.activeElement)) card.focus({ preventScroll: false });
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
  clearTimeout(waiting);
  waiting = 0;
  if (!item || busy) return;
  pause();
  const body = new URLSearchParams({ lease: item.dataset.lease, state: JSON.stringify(now) });
  try {
    const answer = await fetch("/draft", { method: "POST", headers, body, keepalive: body.toString().length < 60000 });
    if (!answer.ok && answer.status !== 401) alarm(await answer.text());
  } catch {
    alarm("The server does not answer. What you do is kept in this page; go on, or start the server again.");
  }
}

function idle(is) {
  busy = !is;
  document.body.classList.toggle("busy", busy);
}

function ask(method, path, values) {
  idle(false);
  return htmx.ajax(method, path, { target: "#main", swap: "innerHTML", values, headers });
}

function submit(answer) {
  if (busy || !item) return;
  if (answer === "ranked" && mode() === "rate" && !now.value) return alarm("Give a grade from 1 to 4.");
  if (answer === "ranked" && mode() !== "rate" && placed().length < 2) return alarm("Place at least two answers, or say all bad, cannot judge or skip.");
  clearTimeout(waiting);
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
  if (!item) {
    say("Done.");
    return;
  }
  now = { ...EMPTY, ...JSON.parse(item.dataset.start) };
  now.tiers = now.tiers.map((tier) => tier.filter((label) => letters().includes(label))).filter((tier) => tier.length);
  show();
  view(localStorage.getItem("raw") === "1");
  window.scrollTo(0, 0);
  focusCard(letters()[0]);
  say(`Prompt ${item.dataset.position} of ${item.dataset.total}. ${letters().length} answers.`);
}

// ---- what buttons and keys do

const actions = {
  place: (label) => { place(label); changed(); focusCard(label); },
  chip: (label) => (tierOf(label) < 0 ? actions.place(label) : focusCard(label)),
  toggle: (label) => { toggle(label); changed(); focusCard(label); },
  view: () => view(localStorage.getItem("raw") !== "1"),
  help: () => $("#help").showModal(),
  stats: () => htmx.ajax("GET", "/stats", { target: "#figures-body", swap: "innerHTML" }).then(() => $("#figures").showModal()),
  leave: () => ask("POST", "/leave", {}),
  undo: () => ask("POST", "/undo", {}),
  again: () => ask("GET", "/item", {}),
  flag: () => { $("#note").value = now.note; $("#flag").showModal(); },
  edit: async (label) => {
    focusCard(label);
    const mine = now.edited !== null && now.edited_of === label;
    const answer = mine ? null : await fetch(`/answer/${label}?exact=1&lease=${encodeURIComponent(item.dataset.lease)}`);
    if (answer && !answer.ok) return alarm(await answer.text());
    $("#better").value = mine ? now.edited : await answer.text();
    $("#edit").showModal();
  },
  diff: (label) => {
    const others = letters();
    if (others.length < 2) return;
    for (const id of ["left", "right"]) $(`#${id}`).replaceChildren(...others.map((other) => new Option(other, other)));
    const rest = [...placed(), ...others].filter((other) => other !== label);
    $("#left").value = label;
    $("#right").value = rest[0];
    compare();
    $("#compare").showModal();
  },
  check: (label) => htmx.ajax("POST", "/check", { target: `#checked-${label}`, swap: "innerHTML", values: { lease: item.dataset.lease, label }, headers }),
  all_bad: () => submit("all_bad"),
  cannot_judge: () => submit("cannot_judge"),
  skipped: () => submit("skipped"),
};

function compare() {
  const query = new URLSearchParams({ lease: item.dataset.lease, left: $("#left").value, right: $("#right").value });
  htmx.ajax("GET", `/diff?${query}`, { target: "#diff", swap: "innerHTML" });
}

const KEYS = {
  a: "all_bad", c: "cannot_judge", s: "skipped", f: "flag", u: "undo", e: "edit", d: "diff", r: "view", "?": "help",
};

function key(event) {
  if (event.ctrlKey && event.key === "Enter" && item && !$("dialog[open]")) return submit("ranked");
  if (event.ctrlKey || event.metaKey || event.altKey || $("dialog[open]")) return;
  if (event.target.matches("textarea, select, input:not([type=radio])")) return;
  const single = localStorage.getItem("keys") !== "off";
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
  const sideways = event.key === "ArrowLeft" || event.key === "ArrowRight";
  const inCard = event.target.closest(".card") || event.target === document.body;
  const rating = mode() === "rate";
  if (step && (!inCard || event.target.matches(".answer, .answer pre"))) return false;
  if (step && sideways) focusCard(labels[(labels.indexOf(current) + step + labels.length) % labels.length]);
  else if (step && !rating) { move(current, step); changed(); }
  else if (event.key === "Backspace" && !rating && now.tiers.length) { remove(placed().at(-1)); joining = false; changed(); }
  else if (!single) return false;
  else if (rating && /^[1-4]$/.test(event.key)) { now.value = Number(event.key); changed(`Grade ${event.key}`); }
  else if (!rating && /^[1-8]$/.test(event.key) && labels[event.key - 1]) actions.place(labels[event.key - 1]);
  else if (!rating && event.key === "=") { equals(); changed(joining ? `${words()} =` : undefined); }
  else if (event.key === "-" || event.key === "+") {
    now.confidence = event.key === "-" ? "slight" : "clear";
    changed(`${now.confidence} preference`);
  } else return false;
  return true;
}

function click(event) {
  const button = event.target.closest("[data-do]");
  const card = event.target.closest(".card");
  if (button) return void actions[button.dataset.do]?.(button.dataset.label ?? card?.dataset.label ?? current);
  if (!card || !item || event.target.closest("a, summary") || !getSelection().isCollapsed) return;
  const label = card.dataset.label;
  focusCard(label);
  if (mode() === "ab" || (mode() !== "rate" && tierOf(label) < 0)) actions.place(label);
}

// ---- dragging a letter, or a card by its head

let drag = null;

function grab(event) {
  const from = event.target.closest("[data-grip]");
  if (!from || event.button !== 0 || event.target.closest("button") || mode() === "ab") return;
  drag = { label: from.dataset.grip, x: event.clientX, y: event.clientY, on: false, id: event.pointerId };
}

function pull(event) {
  if (!drag || event.pointerId !== drag.id) return;
  if (!drag.on && Math.hypot(event.clientX - drag.x, event.clientY - drag.y) < 6) return;
  drag.on = true;
  event.preventDefault();
  const ghost = $("#ghost");
  ghost.textContent = drag.label;
  ghost.hidden = false;
  ghost.style.transform = `translate(${event.clientX}px, ${event.clientY}px)`;
  mark(aim(event));
}

// Where a letter would land: beside or onto the nearest chip of the strip; null outside.
function aim({ clientX: x, clientY: y }) {
  const box = $(".ranking").getBoundingClientRect();
  if (x < box.left - 20 || x > box.right + 20 || y < box.top - 40 || y > box.bottom + 40) return null;
  const chips = all("#strip .chip").filter((other) => other.dataset.label !== drag.label).map((other) => {
    const { left, top, width, height } = other.getBoundingClientRect();
    return { chip: other, dx: x - left - width / 2, dy: y - top - height / 2, near: 0.32 * width };
  });
  chips.sort((a, b) => Math.hypot(a.dx, 3 * a.dy) - Math.hypot(b.dx, 3 * b.dy));
  const [first] = chips;
  if (!first) return { where: "first" };
  return { chip: first.chip, where: Math.abs(first.dx) < first.near ? "onto" : first.dx < 0 ? "before" : "after" };
}

function mark(target) {
  for (const other of all("#strip .chip")) other.classList.remove("onto", "before", "after");
  $("#strip").classList.toggle("over", target !== null);
  target?.chip?.classList.add(target.where);
}

const swallow = (event) => event.stopPropagation();

function drop(event) {
  if (!drag || event.pointerId !== drag.id) return;
  const { label, on } = drag;
  const target = on && event.type === "pointerup" ? aim(event) : null;
  drag = null;
  if (!on) return;
  $("#ghost").hidden = true;
  mark(null);
  addEventListener("click", swallow, { capture: true, once: true });
  setTimeout(() => removeEventListener("click", swallow, { capture: true }));
  if (target) put(label, target);
  else if (event.type === "pointerup") remove(label);
  changed();
  focusCard(label);
}

// ---- wiring

document.addEventListener("keydown", key);
document.addEventListener("click", click);
document.addEventListener("pointerdown", grab);
document.addEventListener("pointermove", pull);
document.addEventListener("pointerup", drop);
document.addEventListener("pointercancel", drop);
document.addEventListener("focusin", (event) => {
  const card = event.target.closest(".card");
  if (card && item && card.dataset.label !== current) focusCard(card.dataset.label);
});
document.addEventListener("submit", (event) => {
  if (event.target.id !== "desk") return;
  event.preventDefault();
  submit("ranked");
});
document.addEventListener("change", (event) => {
  if (event.target.closest("#compare")) return compare();
  if (event.target.id === "single-keys") return localStorage.setItem("keys", event.target.checked ? "" : "off");
  if (event.target.type !== "radio") return;
  now[event.target.name] = event.target.value;
  changed(event.target.value);
});
$("#flag").addEventListener("close", () => {
  if ($("#flag").returnValue !== "ok") return;
  now.note = $("#note").value;
  submit("flagged");
});
$("#edit").addEventListener("close", () => {
  if ($("#edit").returnValue === "ok") Object.assign(now, { edited: $("#better").value, edited_of: current });
  else if ($("#edit").returnValue === "drop") Object.assign(now, { edited: null, edited_of: "" });
  else return;
  changed(now.edited === null ? "The change is dropped." : `Your better answer for ${current} is kept.`);
});
for (const dialog of all("dialog")) dialog.addEventListener("cancel", () => { dialog.returnValue = ""; });
$("#single-keys").checked = localStorage.getItem("keys") !== "off";
document.addEventListener("visibilitychange", () => {
  if (now) pause();
  if (document.hidden && waiting) keep();
});
addEventListener("pagehide", () => { if (waiting) keep(); });
document.addEventListener("htmx:afterSwap", (event) => {
  if (event.detail.target.id !== "main") return;
  alarm("");
  begin();
});
document.addEventListener("htmx:responseError", (event) => {
  const { xhr, pathInfo } = event.detail;
  idle(true);
  if (xhr.status === 409 && pathInfo.requestPath === "/submit") {
    ask("GET", "/item", {}).then(() => alarm(xhr.responseText));
  } else alarm(xhr.responseText || `The server says ${xhr.status}.`);
});
document.addEventListener("htmx:sendError", () => {
  idle(true);
  alarm("The server does not answer. Your answer is kept in this page: send it again when the server runs.");
});
begin();
