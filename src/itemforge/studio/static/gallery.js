// The gallery: what is chosen, by mouse and keyboard, and what is done with it.
"use strict";

const MOST = 500; // of one export, or of any other act
const chosen = new Set();
let anchor = null; // index where a range begins
let sheets = null;

const bar = byId("chosen");
const filters = byId("filters");
const results = () => byId("results");

filters.elements.tz.value = String(new Date().getTimezoneOffset());

// What is typed is searched for as one types; that one leaves the field is no news.
byId("q").addEventListener("change", (event) => event.stopPropagation());

// An address without empty fields, and without a time zone that nothing needs.
document.addEventListener("htmx:configRequest", ({ detail }) => {
  if (detail.elt !== filters) return;
  const asked = detail.parameters;
  const dated = asked.since || asked.until;
  for (const name of Object.keys(asked)) if (!asked[name] || (name === "tz" && !dated)) delete asked[name];
});

/** What the filters let through, anew. */
const refresh = () => htmx.trigger(filters, "submit");

function begin() {
  sheets?.leave();
  chosen.clear();
  anchor = null;
  sheets = new Sheets(results(), mark);
  showChosen();
}

function mark(sheet) {
  for (const card of sheet.children) {
    const is = chosen.has(card.dataset.id);
    card.classList.toggle("is-chosen", is);
    card.querySelector(".pick").checked = is;
  }
}

function showChosen() {
  const count = chosen.size;
  const { deleted, collection } = results().dataset;
  bar.hidden = count === 0;
  document.body.classList.toggle("choosing", count > 0);
  byId("chosen-count").textContent = count.toLocaleString("en");
  const here = {
    like: deleted === undefined,
    collect: deleted === undefined,
    uncollect: collection !== undefined,
    export: deleted === undefined,
    compare: deleted === undefined && count === 2,
    delete: deleted === undefined,
    restore: deleted !== undefined,
    erase: deleted !== undefined,
  };
  for (const [name, is] of Object.entries(here)) bar.querySelector(`[data-act=${name}]`).hidden = !is;
}

/** Chooses cards by their place, or no more. */
function choose(from, to, on) {
  for (let index = Math.min(from, to); index <= Math.max(from, to); index++) {
    const { id } = sheets.order[index];
    if (!on) chosen.delete(id);
    else if (chosen.size < MOST) chosen.add(id);
    else {
      toast(`${MOST} items are the most at once.`, { kind: "bad" });
      break;
    }
  }
  for (const sheet of sheets.box.children) mark(sheet);
  showChosen();
  announce(`${chosen.size} chosen`);
}

function clear() {
  chosen.clear();
  for (const sheet of sheets.box?.children ?? []) mark(sheet);
  showChosen();
}

function toggle(card, ranging) {
  const index = sheets.indexOf(card);
  const on = !chosen.has(card.dataset.id);
  if (ranging && anchor !== null) choose(anchor, index, true);
  else choose(index, index, on);
  anchor = index;
}

/** Everything that the filters let through, as far as an act can take it. */
async function chooseAll() {
  while (sheets.cursor && sheets.order.length < MOST) {
    const before = sheets.order.length;
    await sheets.next();
    if (sheets.order.length === before) return;
  }
  choose(0, Math.min(sheets.order.length, MOST) - 1, true);
}

/** The chosen ones in the order in which they stand. */
const ids = () => sheets.order.filter(({ id }) => chosen.has(id)).map(({ id }) => id);

const acts = {
  async like() {
    const hearts = [...document.querySelectorAll(".is-chosen .heart")];
    const on = hearts.some((heart) => heart.getAttribute("aria-pressed") !== "true") || hearts.length < chosen.size;
    await act(on ? "favourite" : "unfavourite", ids());
    for (const heart of hearts) heart.setAttribute("aria-pressed", String(on));
    for (const [sheet, html] of sheets.emptied) {
      const made = document.createElement("template");
      made.innerHTML = html;
      for (const card of made.content.children)
        if (chosen.has(card.dataset.id)) card.querySelector(".heart").setAttribute("aria-pressed", String(on));
      sheets.emptied.set(sheet, made.innerHTML);
    }
    toast(on ? `${some(chosen.size)} marked` : `${some(chosen.size)} no favourites any more`);
  },
  collect: () => collect(ids(), clear),
  async uncollect() {
    const { collection } = results().dataset;
    await api("POST", `/v1/collections/${collection}/remove`, { ids: ids() });
    refresh();
  },
  export() {
    const drawn = sheets.order.filter(({ id, drawn }) => drawn && chosen.has(id)).map(({ id }) => id);
    if (drawn.length) exportItems(drawn);
    else toast("None of them has a picture yet.", { kind: "bad" });
  },
  compare() {
    const [a, b] = ids();
    location.assign(`/gallery/compare?a=${a}&b=${b}`);
  },
  async delete() {
    await deleteItems(ids(), refresh);
    refresh();
  },
  async restore() {
    const { count } = await act("restore", ids());
    toast(`${some(count)} restored`);
    refresh();
  },
  async erase() {
    if (!confirm(`Delete ${some(chosen.size)} for ever? Nobody can bring them back.`)) return;
    await act("erase", ids());
    refresh();
  },
  clear,
  all: chooseAll,
  async rename() {
    const { collection, collectionName } = results().dataset;
    const name = prompt("The collection's name", collectionName);
    if (!name || name === collectionName) return;
    await api("PATCH", `/v1/collections/${collection}`, { name });
    location.reload();
  },
  async drop() {
    const { collection, collectionName } = results().dataset;
    if (!confirm(`Delete the collection ${collectionName}? What is in it stays.`)) return;
    await api("DELETE", `/v1/collections/${collection}`);
    location.assign("/gallery");
  },
};
const run = async (name) => {
  try {
    await acts[name]();
  } catch (error) {
    complain(error);
  }
};

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-act]");
  if (button) return run(button.dataset.act);
  const card = event.target.closest(".item");
  if (!card) return;
  const heart = event.target.closest(".heart");
  if (heart) {
    const on = heart.getAttribute("aria-pressed") !== "true";
    heart.setAttribute("aria-pressed", String(on));
    await api(on ? "PUT" : "DELETE", `/v1/generations/${card.dataset.id}/favourite`).catch((error) => {
      heart.setAttribute("aria-pressed", String(!on));
      complain(error);
    });
  } else if (event.target.matches(".pick")) toggle(card, event.shiftKey);
  else if (event.shiftKey || event.ctrlKey || event.metaKey) {
    event.preventDefault();
    toggle(card, event.shiftKey);
  }
});

const columns = () => getComputedStyle(sheets.box.lastElementChild).gridTemplateColumns.split(" ").length;

/** To the card there, choosing it with Shift. */
function go(index, ranging) {
  const at = Math.max(0, Math.min(sheets.order.length - 1, index));
  const card = sheets.card(at);
  if (!card) return;
  (card.querySelector("a.shot") ?? card.querySelector(".pick")).focus();
  card.scrollIntoView({ block: "nearest" });
  if (!ranging) return;
  choose(anchor ?? at, at, true);
}

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input:not([type=checkbox]), textarea, select, dialog, details");
  if (event.key === "/" && !typing) {
    event.preventDefault();
    byId("q").focus();
  }
  if (typing || !sheets?.box) return;
  if (event.key === "Escape" && chosen.size) return clear();
  if (event.key === "Delete" && chosen.size) return run(results().dataset.deleted === undefined ? "delete" : "erase");
  if (event.key === "a" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    return run("all");
  }
  const card = document.activeElement.closest?.(".item");
  if (!card || event.ctrlKey || event.metaKey || event.altKey) return;
  const at = sheets.indexOf(card);
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns(), ArrowDown: columns() };
  if (event.key in steps) {
    event.preventDefault();
    if (event.shiftKey && anchor === null) anchor = at;
    go(at + steps[event.key], event.shiftKey);
  } else if ((event.key === " " && !event.target.matches("input, button")) || event.key === "x") {
    event.preventDefault();
    toggle(card, event.shiftKey);
  } else if (event.key === "f") card.querySelector(".heart")?.click();
});

document.addEventListener("htmx:afterSwap", ({ detail }) => {
  if (detail.target.id !== "results" && detail.elt.id !== "results") return;
  begin();
  announce(`${Number(results().dataset.count).toLocaleString("en")} items`);
});

// Who comes back from an item finds the gallery as it was left.
const PLACE = "gallery-place";
const DEEPEST = 30; // sheets that are fetched for it at most

addEventListener("pagehide", () => {
  if (!sheets?.box) return;
  const place = { query: results().dataset.query, sheets: sheets.box.children.length, y: scrollY };
  sessionStorage.setItem(PLACE, JSON.stringify(place));
});

async function comeBack() {
  const place = JSON.parse(sessionStorage.getItem(PLACE) ?? "null");
  const [arrival] = performance.getEntriesByType("navigation");
  const back = arrival.type === "back_forward" || new URL(document.referrer || location.href).pathname.startsWith("/items/");
  if (!back || place?.query !== results().dataset.query || !sheets.box) return;
  while (sheets.cursor && sheets.box.children.length < Math.min(place.sheets, DEEPEST)) {
    const before = sheets.order.length;
    await sheets.next();
    if (sheets.order.length === before) return;
  }
  scrollTo(0, place.y);
}

begin();
comeBack();
