// Keys, dialogs, and what other windows did. Pages and their parts come from the server, by htmx.
"use strict";

const page = () => byId("one") ?? byId("grid");
const inGrid = () => byId("grid") !== null;
const query = () => page().dataset.query;
const withQuery = (path, more = "") => path + "?" + [more, query()].filter(Boolean).join("&");
const show = (path) => htmx.ajax("GET", path, { target: "#main", swap: "innerHTML" });

// What was pressed while the server had not answered yet is done after, on what is there then.
let waiting = Promise.resolve();
let pressed = 0;
const MOST_WAITING = 5;

function inTurn(action) {
  if (pressed >= MOST_WAITING) return;
  pressed += 1;
  waiting = waiting
    .then(action)
    .catch(() => say("That did not work; try again."))
    .finally(() => (pressed -= 1));
}

// ---- the grid's cards ----

const cards = () => [...document.querySelectorAll("#cards .card")];
const chosen = () => document.activeElement?.closest?.("#cards .card") ?? null;
let lastOpen = null; // sha256 of the picture that was open last

function choose(card) {
  card?.querySelector("a").focus({ preventScroll: true });
  card?.scrollIntoView({ block: "nearest" });
}

function move(step) {
  const all = cards();
  const at = all.indexOf(chosen());
  choose(all[at < 0 ? 0 : Math.min(Math.max(at + step, 0), all.length - 1)]);
}

function moveRow(down) {
  const from = chosen();
  if (!from) return move(0);
  const here = from.getBoundingClientRect();
  const rows = cards().filter((card) => {
    const top = card.getBoundingClientRect().top;
    return down ? top > here.top + 4 : top < here.top - 4;
  });
  const top = down ? rows[0]?.getBoundingClientRect().top : rows.at(-1)?.getBoundingClientRect().top;
  const row = rows.filter((card) => Math.abs(card.getBoundingClientRect().top - top) < 4);
  choose(row.find((card) => card.getBoundingClientRect().left >= here.left - 4) ?? row.at(-1));
}

async function decideCard(state) {
  const card = chosen();
  if (!card) return say("Choose a picture first: j, or the arrow keys.");
  const all = cards();
  const next = all[all.indexOf(card) + 1]?.id ?? card.id;
  await htmx.ajax("POST", withQuery(`/captions/${card.dataset.sha}/state`, "view=card"), {
    values: { state, version: card.dataset.version },
    target: "#toast",
    swap: "none",
  });
  choose(byId(next));
}

// ---- one picture ----

async function decideOne(state) {
  if (!(await flush())) return;
  const { sha } = byId("one").dataset;
  await htmx.ajax("POST", withQuery(`/captions/${sha}/state`), {
    values: { state, version: byId("version").value },
    target: "#main",
    swap: "innerHTML",
  });
}

async function go(where) {
  const sha = byId("one").dataset[where];
  if (!sha) return say(where === "next" ? "That was the last one." : "This is the first one.");
  if (await flush()) await show(withQuery(`/picture/${sha}`));
}

function original(on) {
  byId("figure")?.classList.toggle("original", on);
  byId("before")?.setAttribute("aria-pressed", String(on));
}

async function past(open = !byId("past").open, seen = true) {
  const fold = byId("past");
  fold.open = open;
  if (!open) return;
  await htmx.ajax("GET", fold.dataset.get, { target: "#lines", swap: "innerHTML" });
  if (seen) fold.scrollIntoView({ block: "nearest" });
}

async function toggleGrid() {
  if (!(await flush())) return;
  if (inGrid()) {
    const card = chosen() ?? byId(`card-${lastOpen}`) ?? cards()[0];
    if (card) await show(withQuery(`/picture/${card.dataset.sha}`));
    return;
  }
  await show(withQuery("/"));
  choose(byId(`card-${lastOpen}`));
}

const actions = {
  next: () => (inGrid() ? move(1) : go("next")),
  previous: () => (inGrid() ? move(-1) : go("previous")),
  approve: () => (inGrid() ? decideCard("approved") : decideOne("approved")),
  reject: () => (inGrid() ? decideCard("rejected") : decideOne("rejected")),
  grid: toggleGrid,
  undo: async () => {
    if (!(await flush())) return;
    const at = byId("one")?.dataset.sha ?? "";
    const more = `view=${inGrid() ? "grid" : "one"}&at=${at}`;
    await htmx.ajax("POST", withQuery("/undo", more), { target: "#main", swap: "innerHTML" });
  },
  edit: () => {
    if (inGrid()) return toggleGrid();
    const field = byId("field-object");
    field.focus();
    field.setSelectionRange(field.value.length, field.value.length);
  },
  filter: () => byId("word").select(),
  before: () => original(!byId("figure")?.classList.contains("original")),
  history: () => byId("past") && past(),
  replace: async () => {
    if (await flush()) await htmx.ajax("GET", withQuery("/many/replace"), { target: "#dialog-body", swap: "innerHTML" });
  },
  help: () => byId("help").showModal(),
  close: () => byId("dialog").close(),
  clear: () => byId("filters").reset(),
  mine: (button) => currentEditor()?.insist(button.dataset.version),
  theirs: () => actions.discard(),
  discard: () => {
    currentEditor()?.discard();
    return show(withQuery(`/picture/${byId("one").dataset.sha}`));
  },
};

const KEYS = {
  j: "next", n: "next", ArrowRight: "next",
  k: "previous", p: "previous", ArrowLeft: "previous",
  a: "approve", r: "reject", u: "undo", e: "edit", g: "grid", f: "filter", "/": "filter",
  b: "before", h: "history", s: "replace", "?": "help",
};

const isTyping = (field) => field.matches("textarea, select, input:not([type=radio], [type=checkbox], [type=hidden])");

document.addEventListener("keydown", (event) => {
  if (document.querySelector("dialog[open]") || event.isComposing) return;
  const field = event.target;
  if (isTyping(field)) {
    if (event.key === "Escape") {
      event.preventDefault(); // else it empties a search field
      field.blur();
      byId("main").focus({ preventScroll: true });
    } else if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && field.form?.id === "editor") {
      event.preventDefault();
      field.blur();
      inTurn(actions.approve);
    }
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const isArrow = event.key.startsWith("Arrow");
  if (isArrow && field.matches("input, progress, summary")) return;
  if (inGrid() && (event.key === "ArrowDown" || event.key === "ArrowUp") && chosen()) {
    event.preventDefault();
    moveRow(event.key === "ArrowDown");
    return;
  }
  const name = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!name || (event.repeat && ["approve", "reject", "undo"].includes(name))) return;
  event.preventDefault();
  inTurn(() => actions[name]());
});

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-do]");
  if (button) inTurn(() => actions[button.dataset.do](button));
});

// The original shows while a mouse moves over the picture, not where one that rests has got the next picture under it.
// Touch has the button.
document.addEventListener("pointermove", (event) => {
  const moved = event.movementX !== 0 || event.movementY !== 0;
  if (moved && event.pointerType === "mouse" && event.target.closest?.(".stage")) original(true);
});
document.addEventListener("pointerout", (event) => {
  if (event.pointerType === "mouse" && event.target.closest(".stage")) original(false);
});

document.addEventListener("toggle", (event) => {
  if (event.target.id === "past" && event.target.open && !byId("lines").firstChild) past(true);
}, true);

document.addEventListener("saved", (event) => {
  const one = byId("one");
  if (one.dataset.state !== event.detail) {
    one.dataset.state = event.detail;
    byId("state").className = "badge " + event.detail;
    byId("state").textContent = event.detail;
    htmx.ajax("GET", withQuery("/frame"), { target: "#toast", swap: "none" });
  }
  if (byId("past").open) past(true, false); // whoever types stays where they are
});

// ---- htmx ----

// Nothing leaves a picture before what was typed there is saved.
document.addEventListener("htmx:confirm", (event) => {
  if (!currentEditor()?.dirty || event.detail.path.startsWith("/frame")) return;
  event.preventDefault();
  flush().then((saved) => saved && event.detail.issueRequest(true));
});

document.addEventListener("htmx:beforeSwap", (event) => {
  const { xhr, target } = event.detail;
  if (target.id === "main" && currentEditor()?.dirty) {
    // Somebody typed while the answer was on its way.
    event.detail.shouldSwap = false;
    editor.save();
    return;
  }
  if (xhr.status >= 400 && !xhr.getResponseHeader("HX-Retarget")) {
    event.detail.shouldSwap = false;
    say(xhr.status === 401 ? "The token is needed again; load the page anew." : `The server refused this (${xhr.status}).`);
  }
});

document.addEventListener("htmx:sendError", () => say("The server does not answer."));

document.addEventListener("htmx:afterSwap", (event) => {
  const { target } = event.detail;
  if (target.id === "main") arrived();
  if (byId("toast").textContent) byId("toast").dispatchEvent(new Event("said", { bubbles: true }));
});

// Not before: what one types into a form is lost until htmx listens to it.
document.addEventListener("htmx:afterSettle", ({ detail: { target } }) => {
  if (target.id === "dialog-body" && !byId("dialog").open) byId("dialog").showModal();
});

document.addEventListener("closeDialog", () => byId("dialog").close());

function arrived() {
  const one = byId("one");
  currentEditor();
  if (one) lastOpen = one.dataset.sha;
  if (!byId("filters").contains(document.activeElement)) byId("main").focus({ preventScroll: true });
  if (one) window.scrollTo(0, 0);
}

let hide = 0;
document.addEventListener("said", () => {
  byId("toast").classList.add("there");
  clearTimeout(hide);
  hide = setTimeout(() => byId("toast").classList.remove("there"), 6000);
});

// ---- what others did ----

async function lookForChanges() {
  const before = currentEditor()?.saves;
  if (pressed || !page()) return;
  let changed;
  try {
    changed = await (await fetch(`/changes?since=${page().dataset.seen}`)).json();
  } catch {
    return; // whatever is done next will say that the server is away
  }
  const open = currentEditor();
  if (pressed || before !== open?.saves) return; // what we saw may be our own doing
  if (inGrid()) return freshen(changed);
  const { sha } = byId("one").dataset;
  if (!(sha in changed) || String(changed[sha]) === byId("version").value) return;
  if (open.dirty) return open.save(); // which shows both texts
  await show(withQuery(`/picture/${sha}`));
  say("Somebody changed this caption meanwhile; this is the new one.");
}

async function freshen(changed) {
  const old = cards().filter(({ dataset: { sha, version } }) => sha in changed && String(changed[sha]) !== version);
  for (const card of old) {
    await htmx.ajax("GET", withQuery(`/cards/${card.dataset.sha}`), { target: `#${card.id}`, swap: "outerHTML" });
  }
  if (old.length) await htmx.ajax("GET", withQuery("/frame"), { target: "#toast", swap: "none" });
}

window.addEventListener("focus", lookForChanges);
document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && lookForChanges());
document.addEventListener("htmx:afterRequest", (event) => {
  if (event.detail.requestConfig?.verb === "post" && inGrid()) setTimeout(lookForChanges);
});
// Typing in the word's field is heard already; leaving it must not load the grid under a click.
byId("word").addEventListener("change", (event) => event.stopPropagation());
arrived();
