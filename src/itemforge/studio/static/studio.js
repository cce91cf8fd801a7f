// What every page has: the theme's switch, lines at the foot, and what htmx is told when something fails.
"use strict";

const byId = (id) => document.getElementById(id);
const TOAST_FOR = 7000; // ms

/** A line at the foot of the page. `action`, a label and what it does, is for taking something back. */
function toast(text, { kind = "", action = null, onAction = null, stay = TOAST_FOR } = {}) {
  const line = document.createElement("p");
  line.className = `toast ${kind}`;
  line.dataset.stay = stay;
  line.append(text);
  if (action) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = action;
    button.addEventListener("click", () => {
      line.remove();
      onAction();
    });
    line.append(button);
  }
  byId("toasts").append(line);
}

/** Said to screen readers only. */
function announce(text) {
  byId("announce").textContent = text;
}

/** Our own API, by this browser's session; throws an Error that says what to do. */
async function api(method, path, body) {
  let answer;
  try {
    answer = await fetch(path, {
      method,
      headers: body === undefined ? {} : { "Content-Type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch {
    throw new Error("The gateway does not answer; look at your connection and try again.");
  }
  if (answer.status === 401) {
    location.assign(`/enter?next=${encodeURIComponent(location.pathname + location.search)}`);
    throw new Error("Sign in again.");
  }
  const said = answer.status === 204 ? null : await answer.json().catch(() => null);
  if (!answer.ok) {
    const error = new Error(said?.detail ?? `The gateway answered ${answer.status}.`);
    error.status = answer.status;
    error.fields = said?.errors ?? [];
    throw error;
  }
  return said;
}

/** A random UUID. `crypto.randomUUID` is there with TLS only. */
function randomUuid() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = [...bytes].map((each) => each.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}

/** Copies text, and says so. */
async function copyText(text, what) {
  try {
    await navigator.clipboard.writeText(text);
    toast(`${what} copied`);
  } catch {
    toast(`${what} could not be copied; this browser does not allow it.`, { kind: "bad" });
  }
}

const root = document.documentElement;
const isDark = () => getComputedStyle(root).colorScheme.trim() === "dark" || (!root.dataset.theme && matchMedia("(prefers-color-scheme: dark)").matches);

byId("theme").addEventListener("click", () => {
  root.dataset.theme = isDark() ? "light" : "dark";
  try {
    localStorage.setItem("theme", root.dataset.theme);
  } catch {
    // It holds for this page.
  }
});

// Toasts go by themselves, those that the server sent too.
new MutationObserver((changes) => {
  for (const change of changes)
    for (const line of change.addedNodes)
      if (line.nodeType === 1) setTimeout(() => line.remove(), Number(line.dataset.stay ?? TOAST_FOR));
}).observe(byId("toasts"), { childList: true });

document.addEventListener("htmx:beforeSwap", ({ detail }) => {
  // An error that is no piece of a page of ours: a proxy's, or the API's.
  if (detail.xhr.status >= 400 && !detail.xhr.getResponseHeader("HX-Retarget")) {
    detail.shouldSwap = false;
    toast(`That did not work (${detail.xhr.status}); try again.`, { kind: "bad" });
  }
});
document.addEventListener("htmx:sendError", () =>
  toast("The gateway does not answer; look at your connection and try again.", { kind: "bad" }),
);

// A menu closes when one clicks elsewhere or presses Escape.
document.addEventListener("click", (event) => {
  for (const menu of document.querySelectorAll("details.menu[open]")) if (!menu.contains(event.target)) menu.open = false;
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  for (const menu of document.querySelectorAll("details.menu[open]")) {
    menu.open = false;
    menu.querySelector("summary").focus();
  }
});
