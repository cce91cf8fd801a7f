// Publishing a style: LoRA files first, then the pack that names them. Nothing is published before somebody said yes.
"use strict";

const form = byId("publish");
const mebibytes = (bytes) => `${(bytes / 2 ** 20).toFixed(1)} MB`;

function said(text) {
  byId("publish-said").textContent = text;
  byId("publish-said").hidden = !text;
}

function progress(sent, of) {
  byId("publish-progress").hidden = false;
  byId("publish-bar").value = of ? sent / of : 1;
  byId("publish-sent").textContent = `${mebibytes(sent)} of ${mebibytes(of)}`;
}

/** Asks in the dialog; true for yes. */
function sure(pack, loras) {
  const id = /^\s*id\s*=\s*["']([^"']*)["']/m.exec(pack)?.[1] ?? "this pack";
  byId("publish-what").textContent = id;
  byId("publish-means").textContent =
    `With ${loras.length || "no"} LoRA file${loras.length === 1 ? "" : "s"}. ` +
    `Everybody who draws with ${id} and names no version draws with this one from then on. You can go back to an earlier one.`;
  const dialog = byId("publish-sure");
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) =>
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true }),
  );
}

/** Sends one file; its sha256. fetch tells no progress of what it sends. */
function send(file, onProgress) {
  return new Promise((resolve, reject) => {
    const call = new XMLHttpRequest();
    call.open("POST", "/v1/styles/blobs");
    call.setRequestHeader("Content-Type", "application/octet-stream");
    call.upload.addEventListener("progress", (event) => onProgress(event.loaded));
    call.addEventListener("load", () => {
      let answer = null;
      try {
        answer = JSON.parse(call.responseText);
      } catch {
        // A proxy's page: the status says it.
      }
      if (call.status === 201) resolve(answer.sha256);
      else reject(new Error(`${file.name}: ${answer?.detail ?? `the gateway answered ${call.status}.`}`));
    });
    call.addEventListener("error", () =>
      reject(new Error(`${file.name} was not sent: the gateway does not answer; try again.`)),
    );
    call.send(file);
  });
}

async function publish(toml, loras) {
  const total = loras.reduce((sum, file) => sum + file.size, 0);
  const files = [];
  let before = 0;
  for (const file of loras) {
    files.push(await send(file, (sent) => progress(before + Math.min(sent, file.size), total)));
    before += file.size;
  }
  return api("POST", "/v1/styles/publish", { toml, files });
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  said("");
  const loras = [...byId("loras").files];
  const toml = await byId("pack").files[0].text();
  if (!(await sure(toml, loras))) return;
  const button = form.querySelector("button");
  button.disabled = true;
  try {
    const style = await publish(toml, loras);
    form.reset();
    toast(`${style.id} means version ${style.version} now.`);
    await htmx.ajax("GET", "/studio/styles/list", "#styles");
  } catch (error) {
    said(error.message);
  } finally {
    button.disabled = false;
    byId("publish-progress").hidden = true;
  }
});
