// What the gallery and an item's page do with items: mark, collect, delete, export.
"use strict";

const act = (name, ids) => api("POST", `/studio/gallery/${name}`, { ids });
const some = (count) => `${count} item${count === 1 ? "" : "s"}`;

/** Says what went wrong at the foot of the page. */
function complain(error) {
  toast(error.message, { kind: "bad" });
}

/** Hides items, and offers to bring them back; `again` shows what is there then. */
async function deleteItems(ids, again) {
  const { count } = await act("delete", ids);
  toast(`${some(count)} deleted`, {
    action: "Undo",
    stay: 12000,
    onAction: () =>
      act("restore", ids)
        .then(({ count }) => {
          toast(`${some(count)} restored`);
          again();
        })
        .catch(complain),
  });
}

/** Opens a dialog; `send` gets its form's data, and its Error is shown inside. */
function ask(dialog, send) {
  const form = dialog.querySelector("form");
  const problem = dialog.querySelector(".problem");
  const submit = form.querySelector("[type=submit]");
  problem.hidden = true;
  form.onsubmit = async (event) => {
    event.preventDefault();
    submit.disabled = true;
    problem.hidden = true;
    try {
      await send(new FormData(form));
      dialog.close();
    } catch (error) {
      problem.textContent = error.message;
      problem.hidden = false;
    } finally {
      submit.disabled = false;
    }
  };
  dialog.showModal();
}
for (const button of document.querySelectorAll("dialog [data-close]")) button.onclick = () => button.closest("dialog").close();

/** Asks for a collection, and puts items in; `done` is told its id. */
function collect(ids, done) {
  const dialog = byId("collect");
  const one = byId("collect-one");
  const shown = () => (byId("collect-new").hidden = one.value !== "");
  one.onchange = shown;
  shown();
  ask(dialog, async (form) => {
    let id = form.get("one");
    if (!id) {
      const made = await api("POST", "/v1/collections", { name: form.get("name") });
      id = made.id;
      for (const list of document.querySelectorAll("#collect-one, #filters [name=collection]")) {
        const option = new Option(made.name, id);
        if (list === one) one.prepend(option);
        else list.append(option);
      }
      byId("collect-name").value = "";
    }
    const now = await api("POST", `/v1/collections/${id}/add`, { ids });
    one.value = id;
    toast(`${some(ids.length)} put into ${now.name}`);
    done(id);
  });
}

/** The output that a form asks for, as the API takes it; null for the pictures as they were drawn. */
function outputOf(form) {
  const background = form.get("background");
  if (!background) return null;
  const output = { background };
  for (const name of ["size", "pad"]) if (form.get(name)) output[name] = Number(form.get(name));
  for (const name of ["holes", "format"]) if (form.get(name)) output[name] = form.get(name);
  if (form.get("trim")) output.trim = true;
  return output;
}

/** Fields that say nothing of a picture as it was drawn are off. */
function offerFields(form) {
  const drawn = new FormData(form).get("background") === "";
  for (const part of form.querySelectorAll("[data-cut]"))
    for (const field of part.querySelectorAll("select, input")) field.disabled = drawn;
}
for (const form of document.querySelectorAll("#export form, #home")) form.addEventListener("change", () => offerFields(form));

/** The browser keeps these bytes as a file. */
function keep(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

/** Asks for a form, and downloads many pictures in it. */
function exportItems(ids) {
  ask(byId("export"), async (form) => {
    const body = { ids, form: form.get("form") };
    const output = outputOf(form);
    if (output) body.output = output;
    const answer = await fetch("/v1/exports", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
    if (!answer.ok) throw new Error((await answer.json().catch(() => null))?.detail ?? `The gateway answered ${answer.status}.`);
    keep(await answer.blob(), `itemforge-${body.form}.zip`);
  });
}

// An item that was deleted on its own page can be taken back on the next one.
const gone = sessionStorage.getItem("deleted");
if (gone) {
  sessionStorage.removeItem("deleted");
  toast("1 item deleted", {
    action: "Undo",
    stay: 12000,
    onAction: () => act("restore", [gone]).then(() => location.assign(`/items/${gone}`)).catch(complain),
  });
}
