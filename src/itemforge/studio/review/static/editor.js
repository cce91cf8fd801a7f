// The fields of one caption: the caption follows while one types, and every change is saved, from the version that was seen.
"use strict";

const HEADERS = { "ItemForge-Review": "1", "Content-Type": "application/x-www-form-urlencoded" };
const PREVIEW_AFTER = 100; // ms without typing
const SAVE_AFTER = 600;
const TRY_AGAIN_AFTER = 2000;

const byId = (id) => document.getElementById(id);

function say(text) {
  const toast = byId("toast");
  toast.textContent = text;
  toast.dispatchEvent(new Event("said", { bubbles: true }));
}

class Editor {
  constructor(form) {
    this.form = form;
    this.dirty = false;
    this.saves = 0;
    this.running = Promise.resolve(true);
    form.addEventListener("input", () => this.typed());
    form.addEventListener("change", () => this.save());
    form.addEventListener("submit", (event) => event.preventDefault());
  }

  typed() {
    this.dirty = true;
    this.tell("Not saved yet");
    clearTimeout(this.toPreview);
    clearTimeout(this.toSave);
    this.toPreview = setTimeout(() => this.preview(), PREVIEW_AFTER);
    this.toSave = setTimeout(() => this.save(), SAVE_AFTER);
  }

  values() {
    return new URLSearchParams(new FormData(this.form)).toString();
  }

  tell(text, action) {
    const line = byId("saved");
    line.textContent = text;
    if (action) {
      const button = document.createElement("button");
      button.type = "button";
      button.dataset.do = "discard";
      button.textContent = action;
      line.append(" ", button);
    }
  }

  show(html) {
    byId("shown").innerHTML = html; // rendered, and escaped, by our server
    clearTimeout(this.toAnnounce);
    this.toAnnounce = setTimeout(() => {
      const said = ["tokens", "dropped"].map((id) => byId(id)?.textContent ?? "").join(" ");
      byId("announce").textContent = said.trim() || byId("shown").textContent.trim();
    }, 800);
  }

  async preview() {
    const sent = this.values();
    try {
      const answer = await fetch("/preview", { method: "POST", headers: HEADERS, body: sent });
      const html = await answer.text();
      if (answer.ok && this.form.isConnected && sent === this.values()) this.show(html);
    } catch {
      // Saving will say that the server is away.
    }
  }

  /** Save what is not saved; whether all is. One at a time, for each needs the version that the last one made. */
  save() {
    clearTimeout(this.toSave);
    this.running = this.running.then(() => this.send());
    return this.running;
  }

  async send() {
    if (!this.dirty || !this.form.isConnected) return true;
    this.saves += 1;
    const sent = this.values();
    let answer, html;
    try {
      answer = await fetch(this.form.dataset.action, { method: "POST", headers: HEADERS, body: sent, keepalive: true });
      html = await answer.text();
    } catch {
      this.tell("Not saved: the server does not answer. It is tried again; leave this window open.");
      this.toSave = setTimeout(() => this.save(), TRY_AGAIN_AFTER);
      return false;
    }
    if (!this.form.isConnected) return answer.ok;
    if (answer.ok) return this.saved(answer, html, sent);
    if (answer.status === 409) {
      byId("conflict").innerHTML = html;
      this.tell("Not saved: changed meanwhile", "Discard my change");
    } else if (answer.status === 422) {
      if (sent === this.values()) this.show(html);
      this.tell("Not saved", "Discard my change");
    } else {
      this.tell(`Not saved: the server answered ${answer.status}`, "Discard my change");
    }
    return false;
  }

  saved(answer, html, sent) {
    const typed = this.values() !== sent;
    const state = answer.headers.get("Review-State");
    byId("version").value = answer.headers.get("Review-Version");
    this.dirty = typed;
    if (!typed) {
      this.show(html);
      this.tell("Saved");
    }
    byId("conflict").replaceChildren();
    document.dispatchEvent(new CustomEvent("saved", { detail: state }));
    return typed ? this.send() : true;
  }

  /** After a conflict: write over the other's change, which stays in the history. */
  insist(version) {
    byId("version").value = version;
    this.dirty = true;
    return this.save();
  }

  discard() {
    clearTimeout(this.toSave);
    clearTimeout(this.toPreview);
    this.dirty = false;
  }
}

let editor = null;

/** Of the picture that is open; null in the grid. */
function currentEditor() {
  const form = byId("editor");
  if (editor?.form !== form) editor = form ? new Editor(form) : null;
  return editor;
}

/** Whether everything typed is saved; says so if not. */
async function flush() {
  const open = currentEditor();
  if (!open || (await open.save())) return true;
  say("Not saved: " + (byId("shown").querySelector("[data-problem]")?.textContent ?? "see beside the fields"));
  return false;
}

window.addEventListener("beforeunload", (event) => {
  if (currentEditor()?.dirty) event.preventDefault();
});
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "hidden") currentEditor()?.save();
});
