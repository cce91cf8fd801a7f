// The make page: what a style changes in the form, and cards that follow what happens by one event stream.
"use strict";

const form = byId("make-form");
const cards = byId("cards");
const KEPT = "make-form"; // what was typed, until the tab is closed
const HIDDEN_FOR = 60_000; // ms that a tab may be hidden and keep its connection; browsers have few of them
const GATHER = 60; // ms in which changed cards are gathered into one call
const MOST_AT_ONCE = 100; // cards
const isOpen = (card) => ["Pending", "Processing"].includes(card.dataset.status);
const openCards = () => [...cards.children].filter(isOpen);

// ── The form ────────────────────────────────────────────────────────────────────────────────────

/** Another press: what is asked for from now on is not what was asked for before. */
function newPress() {
  byId("press").value = randomUuid();
}

/** Limits and what an empty field means follow from the style. */
function showStyle() {
  const style = form.querySelector("[name=style]:checked")?.dataset;
  if (!style) return;
  for (const name of ["steps", "guidance", "width", "height"]) byId(name).placeholder = style[name];
  for (const name of ["width", "height"]) Object.assign(byId(name), { min: style.min, max: style.max });
  byId("lora_weight").placeholder = style.weight;
  byId("lora_weight").disabled = byId("weight-field").hidden = style.weight === "";
  byId("negative").placeholder = style.negative || "nothing";
  byId("scheduler").options[0].textContent = `${style.sampler} (the style's)`;
  byId("size-hint").textContent = style.min === style.max ? "" : `Sides from ${style.min} to ${style.max} pixels, in steps of 8.`;
}

function showCount() {
  const count = byId("count").value;
  byId("count-shown").textContent = count;
  byId("make-button").querySelector("span").textContent = count === "1" ? "Make it" : `Make ${count}`;
}

let composing;
function compose() {
  clearTimeout(composing);
  composing = setTimeout(() => htmx.trigger("#composed", "compose"), 250);
}

function keep() {
  const kept = Object.fromEntries([...new FormData(form)].filter(([name]) => name !== "press"));
  try {
    sessionStorage.setItem(KEPT, JSON.stringify(kept));
  } catch {
    // Then the form is empty after a reload.
  }
}

function recall() {
  let kept = {};
  try {
    kept = JSON.parse(sessionStorage.getItem(KEPT)) ?? {};
  } catch {
    return;
  }
  for (const [name, value] of Object.entries(kept)) {
    const field = form.elements[name];
    if (field instanceof RadioNodeList) [...field].filter((each) => each.value === value).forEach((each) => (each.checked = true));
    else if (field) field.value = value;
  }
}

if (!("given" in form.dataset)) recall();
showStyle();
showCount();

form.addEventListener("input", () => {
  newPress();
  showStyle();
  showCount();
  compose();
  keep();
  byId("make-said").replaceChildren();
});
form.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
  event.preventDefault();
  if (!byId("make-button").disabled) form.requestSubmit();
});
form.addEventListener("invalid", (event) => (event.target.closest("details") ?? {}).open = true, true);
byId("reset").addEventListener("click", () => {
  for (const field of byId("more").querySelectorAll("input, select, textarea")) field.value = "";
  form.dispatchEvent(new Event("input"));
  announce("All settings are the style's again");
});

// ── Cards ───────────────────────────────────────────────────────────────────────────────────────

/** Puts cards that the gateway sent in the place of the old ones, and new ones in front. */
function put(html) {
  const sent = document.createElement("template");
  sent.innerHTML = html;
  for (const card of [...sent.content.querySelectorAll(".item-card")].reverse()) {
    const old = byId(card.id);
    if (!old) cards.prepend(card);
    else {
      const held = old.contains(document.activeElement);
      const drawn = old.querySelector(".preview:not([hidden])");
      // What was seen last stays until the picture itself is there.
      if (drawn) card.querySelector(".picture").style.backgroundImage = `url("${drawn.src}")`;
      old.replaceWith(card);
      if (held) card.querySelector(".do :is(a, button)")?.focus();
    }
    htmx.process(card);
  }
  counted();
}

function counted() {
  byId("cancel-all").hidden = openCards().length === 0;
}

let changed = new Set();
let gathering = null;
/** Has cards drawn anew from the database, several by one call. */
function refresh(ids) {
  for (const id of ids) changed.add(id);
  if (changed.size) gathering ??= setTimeout(fetchChanged, GATHER);
}

async function fetchChanged() {
  const ids = [...changed].slice(0, MOST_AT_ONCE);
  for (const id of ids) changed.delete(id);
  gathering = changed.size ? setTimeout(fetchChanged, GATHER) : null;
  try {
    const answer = await fetch(`/studio/make/cards?ids=${ids.join(",")}`, { headers: { "HX-Request": "true" } });
    if (answer.ok) put(await answer.text());
  } catch {
    // The stream is broken too; when it is back, open cards are asked for again.
  }
}

async function cancelCards(ids) {
  try {
    const body = new URLSearchParams({ ids: ids.join(",") });
    const answer = await fetch("/studio/make/cancel", { method: "POST", body, headers: { "HX-Request": "true" } });
    if (!answer.ok) throw new Error(answer.status);
    put(await answer.text());
  } catch {
    toast("The gateway does not answer; look at your connection and try again.", { kind: "bad" });
  }
}

cards.addEventListener("click", (event) => {
  if (event.target.closest("[data-cancel]")) cancelCards([event.target.closest(".item-card").dataset.id]);
});
byId("cancel-all").addEventListener("click", async () => {
  const ids = openCards().map((card) => card.dataset.id);
  for (let start = 0; start < ids.length; start += MOST_AT_ONCE) await cancelCards(ids.slice(start, start + MOST_AT_ONCE));
});
// The stream may tell of a request before the answer to the form does, and puts its card there.
document.addEventListener("htmx:beforeSwap", ({ detail }) => {
  const answer = document.createElement("template");
  answer.innerHTML = detail.serverResponse;
  for (const { id, dataset } of answer.content.querySelectorAll(".item-card")) {
    const told = byId(id);
    if (!told || told === detail.target) continue;
    told.remove();
    refresh([dataset.id]); // the answer may be older
  }
});
document.addEventListener("htmx:afterSwap", ({ target }) => {
  if (target === cards) announce("Asked for");
  counted();
});

function about(seconds) {
  if (seconds === null) return "";
  if (seconds < 60) return ` · about ${seconds} s`;
  return seconds < 5400 ? ` · about ${Math.round(seconds / 60)} min` : ` · about ${Math.round(seconds / 3600)} h`;
}

const heard = {
  state(data) {
    const card = byId(`card-${data.id}`);
    if (card?.dataset.status === data.status) return;
    if (card && data.status === "Completed") announce(`Drawn: ${card.querySelector(".what").textContent}`);
    if (card && data.status === "Failed") announce(`Failed: ${card.querySelector(".what").textContent}`);
    refresh([data.id]);
  },
  progress(data) {
    const card = byId(`card-${data.id}`);
    const bar = card?.querySelector("progress");
    if (!bar) return;
    bar.value = data.step;
    card.querySelector(".where").textContent = `Step ${data.step} of ${data.steps}${about(Number(card.dataset.eta || NaN) || null)}`;
  },
  preview(data) {
    const picture = byId(`card-${data.id}`)?.querySelector(".preview");
    if (!picture || !/^[A-Za-z0-9+/]+={0,2}$/.test(data.jpeg_base64)) return;
    picture.src = `data:image/jpeg;base64,${data.jpeg_base64}`;
    picture.hidden = false;
  },
  queue(data) {
    for (const { id, position, eta_s: seconds } of data.open) {
      const card = byId(`card-${id}`);
      if (!card || !isOpen(card)) continue;
      if (position === 0) card.dataset.eta = seconds ?? "";
      else if (card.dataset.status === "Pending")
        card.querySelector(".where").textContent = (position === 1 ? "Next in line" : `Number ${position} in line`) + about(seconds);
    }
    byId("no-worker").hidden = data.workers > 0 || openCards().length === 0;
  },
};

// ── One connection for all of them ──────────────────────────────────────────────────────────────

let source = null;
let lastId = 0;
let pause = 1000;
let retry = null;
let opened = false;
const lastOf = new Map(); // of each card the last event's id: one may be told twice after a reconnection

function hear(kind, event) {
  const data = JSON.parse(event.data);
  const number = Number(event.lastEventId) || 0;
  if (kind === "state" || kind === "progress") {
    if (number <= (lastOf.get(data.id) ?? 0)) return;
    lastOf.set(data.id, number);
    lastId = Math.max(lastId, number);
  }
  heard[kind](data);
}

function connect() {
  clearTimeout(retry);
  source?.close();
  source = new EventSource(lastId ? `/v1/events?after=${lastId}` : "/v1/events");
  for (const kind of Object.keys(heard)) source.addEventListener(kind, (event) => hear(kind, event));
  source.onopen = () => {
    pause = 1000;
    byId("line-state").textContent = "";
    // Whatever was missed, the database knows.
    if (opened) refresh(openCards().map((card) => card.dataset.id));
    opened = true;
  };
  source.onerror = () => {
    sayLost();
    source.close();
    retry = setTimeout(connect, pause);
    pause = Math.min(2 * pause, 15_000);
  };
}

function sayLost() {
  byId("line-state").textContent = "No connection; what you asked for goes on. Trying again…";
}

function disconnect() {
  clearTimeout(retry);
  source?.close();
  source = null;
}

let leaving = null;
document.addEventListener("visibilitychange", () => {
  clearTimeout(leaving);
  if (document.hidden) leaving = setTimeout(disconnect, HIDDEN_FOR);
  else if (source === null) connect();
});
addEventListener("online", connect);
addEventListener("offline", () => {
  disconnect(); // else the browser may take minutes to see it
  sayLost();
});
addEventListener("pageshow", (event) => event.persisted && connect());

counted();
connect();
