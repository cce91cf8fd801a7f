// A batch's grid: judged by keys or by hand, and kept up to date without losing one's place.
"use strict";

const batch = byId("batch");
const grid = byId("grid");
const viewer = byId("viewer");
const address = `/v1/batches/${batch.dataset.id}`;
const state = () => byId("batch-state").dataset;
const shots = () => [...grid.querySelectorAll(".shot")].filter((shot) => shot.offsetParent);
const cellOf = (element) => element?.closest(".cell");
const isDrawn = (cell) => cell?.dataset.status === "Completed";
const look = () => htmx.trigger("#poll", "look");

let here = null; // id of the shot that keys are for

// ── Where one is ────────────────────────────────────────────────────────────────────────────────

function go(shot, { focus = true } = {}) {
  if (!shot) return;
  const before = here && byId(here);
  if (before) before.tabIndex = -1;
  here = shot.id;
  shot.tabIndex = 0;
  if (viewer.open) show(cellOf(shot));
  else if (focus) shot.focus();
}

/** The nearest shot in a direction, by where they are on the screen. */
function beside(shot, key) {
  const all = shots();
  const at = all.indexOf(shot);
  if (key === "ArrowRight") return all[at + 1];
  if (key === "ArrowLeft") return all[at - 1];
  if (key === "Home") return all[0];
  if (key === "End") return all.at(-1);
  const from = shot.getBoundingClientRect();
  const sign = key === "ArrowDown" ? 1 : -1;
  let best = null;
  let least = Infinity;
  for (const each of all) {
    const to = each.getBoundingClientRect();
    const down = (to.top - from.top) * sign;
    const far = down + Math.abs(to.left - from.left) * 2;
    if (down > 4 && far < least) [best, least] = [each, far];
  }
  return best;
}

/** The next picture without a verdict, else the next one. */
function onward(shot) {
  const after = shots().slice(shots().indexOf(shot) + 1);
  return after.find((each) => isDrawn(cellOf(each)) && cellOf(each).dataset.verdict === "none") ?? after[0] ?? shot;
}

// ── Verdicts ────────────────────────────────────────────────────────────────────────────────────

function paint(cell, verdict) {
  cell.dataset.verdict = verdict;
  cell.dataset.v = ""; // what the gateway says next is new in any case
  for (const button of cell.querySelectorAll(".judge [data-verdict]")) button.setAttribute("aria-pressed", String(button.dataset.verdict === verdict));
}

async function judge(cell, verdict) {
  if (!isDrawn(cell)) {
    toast("This picture is not drawn, so there is nothing to judge.");
    return;
  }
  const before = cell.dataset.verdict;
  const { id } = cell.dataset;
  paint(cell, verdict);
  announce(verdict === "none" ? "Verdict taken back" : verdict);
  try {
    await api("POST", `${address}/verdicts`, { verdict, ids: [id] });
  } catch (error) {
    const now = byId(cell.id);
    if (now?.dataset.id === id) paint(now, before);
    toast(error.message, { kind: "bad" });
  }
  look();
}

/** `verdict` once more takes it back. */
const toggled = (cell, verdict) => (cell.dataset.verdict === verdict ? "none" : verdict);

async function ask(what, body, told) {
  try {
    const { changed } = await api("POST", `${address}/${what}`, body);
    toast(told(changed));
  } catch (error) {
    toast(error.message, { kind: "bad" });
  }
  look();
}

const pictures = (n) => `${n} ${n === 1 ? "picture" : "pictures"}`;
byId("approve-rest").addEventListener("click", () => ask("verdicts", { verdict: "approved" }, (n) => `${pictures(n)} approved`));
byId("reroll").addEventListener("click", () => ask("reroll", {}, (n) => `${pictures(n)} drawn again`));
byId("cancel").addEventListener("click", () => ask("cancel", {}, (n) => `${pictures(n)} cancelled`));

grid.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  const cell = cellOf(button);
  if (!cell) return;
  go(cell.querySelector(".shot"), { focus: button.classList.contains("shot") });
  if (button.dataset.verdict) judge(cell, toggled(cell, button.dataset.verdict));
  else if (button.classList.contains("again")) ask("reroll", { ids: [cell.dataset.id] }, () => "Drawn again");
  else if (isDrawn(cell)) open(cell);
});

// ── Keys ────────────────────────────────────────────────────────────────────────────────────────

const VERDICTS = { a: "approved", r: "rejected", u: "none" };

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const shot = here && byId(here);
  if (!shot) return;
  if (event.key in VERDICTS) {
    event.preventDefault();
    const next = event.key === "u" ? shot : onward(shot);
    judge(cellOf(shot), VERDICTS[event.key]);
    go(next);
  } else if (event.key.startsWith("Arrow") || ["Home", "End"].includes(event.key)) {
    event.preventDefault();
    go(beside(shot, event.key));
  }
}
grid.addEventListener("keydown", pressed);
viewer.addEventListener("keydown", pressed);
grid.addEventListener("focusin", (event) => {
  if (event.target.classList.contains("shot")) go(event.target, { focus: false });
});

// ── A picture large ─────────────────────────────────────────────────────────────────────────────

function show(cell) {
  byId("viewer-said").textContent = cell.dataset.said;
  const image = byId("viewer-image");
  image.hidden = !isDrawn(cell);
  if (isDrawn(cell)) image.src = `/v1/generations/${cell.dataset.id}/image`;
  else image.removeAttribute("src");
  byId("viewer-item").href = `/items/${cell.dataset.id}`;
  for (const id of ["viewer-yes", "viewer-no"]) {
    byId(id).disabled = !isDrawn(cell);
    byId(id).setAttribute("aria-pressed", String(byId(id).dataset.verdict === cell.dataset.verdict));
  }
}

function open(cell) {
  show(cell);
  viewer.showModal();
}

byId("viewer-close").addEventListener("click", () => viewer.close());
viewer.addEventListener("close", () => byId(here)?.focus());
viewer.addEventListener("click", (event) => {
  if (event.target === viewer) viewer.close();
  const button = event.target.closest("[data-verdict]");
  const cell = button && cellOf(byId(here));
  if (!cell) return;
  judge(cell, toggled(cell, button.dataset.verdict));
  show(cell);
});

// ── What is shown, and what is new ──────────────────────────────────────────────────────────────

byId("show").addEventListener("change", ({ target }) => {
  grid.dataset.show = target.value;
});

function label(id, text, count) {
  byId(id).querySelector("span").textContent = count ? `${text} (${count})` : text;
  byId(id).disabled = !count;
}

function stand() {
  const now = state();
  label("approve-rest", "Approve the rest", Number(now.undecided));
  label("reroll", "Draw rejected again", Number(now.again));
  byId("cancel").hidden = now.open === "0";
  const none = byId("which").value === "approved" ? now.approved === "0" : now.drawn === "0";
  byId("take-zip").disabled = none;
  byId("take-hint").textContent = none ? "Approve some pictures first." : "";
  if (!(here && byId(here))) go(shots()[0], { focus: false });
}
byId("which").addEventListener("change", stand);
byId("take").addEventListener("submit", () => {
  byId("size").disabled = !byId("size").value; // an empty size is none
  setTimeout(() => (byId("size").disabled = false));
});

const box = byId("poll-box");
const SELDOM = 10; // of so many looks one, when nothing is open: somebody else may judge
let looks = 0;
box.addEventListener("htmx:configRequest", (event) => {
  event.detail.parameters.things = grid.querySelectorAll(".thing").length;
  const asked = event.detail.triggeringEvent?.type === "look";
  if (!asked && (document.hidden || (state().open === "0" && ++looks % SELDOM))) event.preventDefault();
});
// One line says that the gateway is away, not one every two seconds.
for (const name of ["htmx:sendError", "htmx:timeout"])
  box.addEventListener(name, (event) => {
    event.stopPropagation();
    byId("lost").hidden = false;
  });
box.addEventListener("htmx:beforeSwap", (event) => {
  byId("lost").hidden = event.detail.xhr.status < 400;
  if (event.detail.xhr.status >= 400) {
    event.detail.shouldSwap = false;
    event.stopPropagation();
  }
});
document.addEventListener("htmx:oobBeforeSwap", (event) => {
  const fresh = event.detail.fragment.querySelector?.("[data-v]");
  if (fresh && fresh.dataset.v === event.detail.target?.dataset.v) event.detail.shouldSwap = false;
});
document.addEventListener("htmx:oobAfterSwap", ({ detail }) => {
  const shot = here && byId(here);
  if (shot) shot.tabIndex = 0;
  if (viewer.open && shot && detail.target?.contains?.(shot)) show(cellOf(shot));
});
document.addEventListener("htmx:afterSettle", stand);
stand();
