// The form of a batch: a file becomes the list, and what the list makes is shown while one types.
"use strict";

const batchForm = byId("batch-form");
const list = byId("list");
const MOST_BYTES = 1_000_000; // of a file

/** Another press: what is asked for from now on is not what was asked for before. */
function newPress() {
  byId("press").value = randomUuid();
}

let looking;
function changed() {
  newPress();
  byId("count-shown").textContent = byId("count").value;
  byId("batch-said").replaceChildren();
  clearTimeout(looking);
  looking = setTimeout(() => htmx.trigger("#batch-preview", "look"), 300);
}

async function take(file) {
  if (!file) return;
  if (file.size > MOST_BYTES) {
    toast(`${file.name} is too large for a list; it may have 1 MB.`, { kind: "bad" });
    return;
  }
  list.value = await file.text();
  byId("file-name").textContent = file.name;
  changed();
}

batchForm.addEventListener("input", (event) => event.target.id !== "file" && changed());
byId("file").addEventListener("change", ({ target }) => {
  take(target.files[0]);
  target.value = ""; // the same file once more is a change too
});
list.addEventListener("dragover", (event) => event.preventDefault());
list.addEventListener("drop", (event) => {
  if (!event.dataTransfer.files.length) return;
  event.preventDefault();
  take(event.dataTransfer.files[0]);
});
batchForm.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) batchForm.requestSubmit();
});
if (list.value.trim()) changed(); // what the browser kept
