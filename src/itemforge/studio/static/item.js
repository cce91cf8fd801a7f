// One item's page: zoom, what is behind the picture, the form in which it is taken home, keys.
"use strict";

const one = byId("one");
const { id, n, status, gallery } = one.dataset;
const image = byId("big");
const stage = byId("stage");
const ZOOMS = [0.25, 0.5, 1, 2, 3, 4, 6, 8, 12, 16];
const PREVIEW_AFTER = 250; // ms without a change
const LOOK_AGAIN = 2000; // ms, at an item that is not drawn yet

let zoom = null; // null: as large as the stage

function showZoom() {
  image.classList.toggle("zoomed", zoom !== null);
  image.classList.toggle("pixels", (zoom ?? stage.clientWidth / image.naturalWidth) >= 2);
  image.style.width = zoom === null ? "" : `${image.naturalWidth * zoom}px`;
  byId("zoom").textContent = zoom === null ? "fit" : `${Math.round(zoom * 100)} %`;
}

function zoomBy(steps) {
  const now = zoom ?? image.clientWidth / image.naturalWidth;
  const way = steps > 0 ? ZOOMS.find((each) => each > now * 1.01) : ZOOMS.findLast((each) => each < now * 0.99);
  zoom = way ?? zoom;
  showZoom();
}
const zooms = { in: () => zoomBy(1), out: () => zoomBy(-1), fit: () => ((zoom = null), showZoom()) };

/** The query of the picture in the form that is chosen. */
function queryOf(form) {
  const query = new URLSearchParams({ n });
  for (const [name, value] of Object.entries(outputOf(new FormData(form)) ?? {})) query.set(name, String(value));
  return query;
}

let last = null; // the preview that is on its way
let shownUrl = null;

async function preview(form) {
  const problem = form.querySelector(".problem");
  const path = `/v1/generations/${id}/image?${queryOf(form)}`;
  const download = byId("download");
  last?.abort();
  last = new AbortController();
  stage.setAttribute("aria-busy", "true");
  try {
    const answer = await fetch(path, { signal: last.signal });
    if (!answer.ok) throw new Error((await answer.json().catch(() => null))?.detail ?? `The gateway answered ${answer.status}.`);
    const blob = await answer.blob();
    const url = URL.createObjectURL(blob);
    image.src = url;
    await image.decode();
    if (shownUrl) URL.revokeObjectURL(shownUrl);
    shownUrl = url;
    showZoom();
    problem.hidden = true;
    download.href = path;
    download.setAttribute("download", fileName(blob.type));
    download.removeAttribute("aria-disabled");
    byId("weight").textContent = `${image.naturalWidth} × ${image.naturalHeight}, ${(blob.size / 1000).toFixed(1)} kB`;
  } catch (error) {
    if (error.name === "AbortError") return;
    problem.textContent = error.message;
    problem.hidden = false;
    download.removeAttribute("href");
    download.setAttribute("aria-disabled", "true");
    byId("weight").textContent = "";
  }
  stage.removeAttribute("aria-busy");
}

/** As exports name it: its prompt and its seed. */
function fileName(type) {
  const words = text("Prompt").toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-+|-+$/g, "").slice(0, 40) || "item";
  return `${words}-${text("Seed")}.${type === "image/webp" ? "webp" : "png"}`;
}
const text = (name) => one.querySelector(`[data-name="${name}"]`).textContent;

if (image) {
  const form = byId("home");
  let waiting = null;
  form.addEventListener("change", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => preview(form), PREVIEW_AFTER);
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  if (image.complete) showZoom();
  image.addEventListener("load", showZoom);
  byId("ground").addEventListener("change", (event) => (stage.className = `stage ${event.target.value}`));
  stage.addEventListener(
    "wheel",
    (event) => {
      if (!event.ctrlKey) return;
      event.preventDefault();
      zoomBy(-Math.sign(event.deltaY));
    },
    { passive: false },
  );
  preview(form);
}

const acts = {
  async like(button) {
    const on = button.getAttribute("aria-pressed") !== "true";
    await api(on ? "PUT" : "DELETE", `/v1/generations/${id}/favourite`);
    button.setAttribute("aria-pressed", String(on));
  },
  collect: () => collect([id], () => location.reload()),
  async delete() {
    await act("delete", [id]);
    // The gallery offers to take it back.
    sessionStorage.setItem("deleted", id);
    location.assign(byId("older")?.href ?? byId("newer")?.href ?? gallery);
  },
};

document.addEventListener("click", async ({ target }) => {
  const button = target.closest("button");
  if (!button) return;
  const { zoom: way, act: name, copy, out } = button.dataset;
  if (way) zooms[way]();
  if (copy) copyText(button.dataset.text ?? text(copy), copy);
  try {
    if (name) await acts[name](button);
    if (out) {
      await api("POST", `/v1/collections/${out}/remove`, { ids: [id] });
      location.reload();
    }
  } catch (error) {
    complain(error);
  }
});

document.addEventListener("keydown", (event) => {
  if (event.target.closest("input, textarea, select, dialog, summary") || event.ctrlKey || event.metaKey || event.altKey) return;
  const press = (selector) => document.querySelector(selector)?.click();
  const keys = {
    ArrowLeft: () => zoom === null && press("#newer"),
    ArrowRight: () => zoom === null && press("#older"),
    Escape: () => press("#back"),
    Delete: () => press("[data-act=delete]"),
    f: () => press("[data-act=like]"),
    "+": () => image && zoomBy(1),
    "=": () => image && zoomBy(1),
    "-": () => image && zoomBy(-1),
    0: () => image && zooms.fit(),
  };
  keys[event.key]?.();
});

for (const time of document.querySelectorAll("time")) time.textContent = new Date(time.dateTime).toLocaleString();

// What is not drawn yet shows itself when it is.
async function lookAgain() {
  try {
    const now = await api("GET", `/v1/generations/${id}`);
    if (now.status !== status) return location.reload();
  } catch {
    // The next look may find it.
  }
  setTimeout(lookAgain, LOOK_AGAIN);
}
if (status === "Pending" || status === "Processing") setTimeout(lookAgain, LOOK_AGAIN);
