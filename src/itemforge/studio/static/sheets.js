// The gallery's cards come in sheets: the next one before one gets there, and those far away are emptied, so that ten
// thousand cards weigh as much as a few hundred.
"use strict";

const AHEAD = 2000; // px below the window where the next sheet is fetched
const KEPT = 3000; // px around the window within which sheets are full

class Sheets {
  /** `root` is #results. `shown` is called with each sheet whose cards are put on the page. */
  constructor(root, shown) {
    this.root = root;
    this.shown = shown;
    this.order = []; // {id, drawn} of every card so far, first to last
    this.emptied = new Map(); // sheet -> its cards as HTML
    this.box = root.querySelector("#sheets");
    this.more = root.querySelector("#more");
    if (!this.box) return;
    this.near = new IntersectionObserver((seen) => seen.forEach((each) => this.keep(each.target, each.isIntersecting)), {
      rootMargin: `${KEPT}px 0px`,
    });
    this.end = new IntersectionObserver((seen) => seen.at(-1).isIntersecting && this.next(), { rootMargin: `${AHEAD}px 0px` });
    this.resized = new ResizeObserver(() => this.measure());
    this.resized.observe(this.box);
    this.add(this.box.querySelector(".sheet"));
    this.end.observe(this.more);
  }

  leave() {
    this.near?.disconnect();
    this.end?.disconnect();
    this.resized?.disconnect();
    this.stopped = true;
  }

  add(sheet) {
    sheet.first = this.order.length;
    for (const card of sheet.children) this.order.push({ id: card.dataset.id, drawn: "drawn" in card.dataset });
    sheet.count = sheet.children.length;
    this.cursor = sheet.dataset.next;
    this.more.hidden = !this.cursor;
    this.shown(sheet);
    this.near.observe(sheet);
    // The one before was the last until now, which is never emptied.
    const before = sheet.previousElementSibling;
    if (before?.far) this.keep(before, false);
    this.measure();
  }

  async next() {
    if (this.loading) return this.loading;
    if (!this.cursor) return;
    this.loading = this.fetchNext();
    const came = await this.loading;
    this.loading = null;
    // The observer speaks of changes only: is there still room below?
    this.end.unobserve(this.more);
    if (came) this.end.observe(this.more);
  }

  /** Whether it came. */
  async fetchNext() {
    this.more.textContent = "More…";
    const query = new URLSearchParams(this.root.dataset.query);
    query.set("cursor", this.cursor);
    try {
      const answer = await fetch(`/studio/gallery/more?${query}`, { headers: { "HX-Request": "true", "HX-Current-URL": location.href } });
      if (!answer.ok) throw new Error();
      const made = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector(".sheet");
      if (this.stopped) return false;
      this.box.append(made);
      this.add(made);
      return true;
    } catch {
      const again = document.createElement("button");
      again.textContent = "The next ones did not come. Try again";
      again.onclick = () => this.next();
      this.more.replaceChildren(again);
      return false;
    }
  }

  /** Full when near, else empty and as high as before. */
  keep(sheet, near) {
    sheet.far = !near;
    if (near && this.emptied.has(sheet)) {
      sheet.innerHTML = this.emptied.get(sheet);
      this.emptied.delete(sheet);
      sheet.classList.remove("emptied");
      this.shown(sheet);
    } else if (!near && !this.emptied.has(sheet) && sheet.nextElementSibling && !sheet.contains(document.activeElement)) {
      this.emptied.set(sheet, sheet.innerHTML);
      sheet.replaceChildren();
      sheet.classList.add("emptied");
    }
  }

  /** All sheets but the last are equally high: one that is on the screen says how high. */
  measure() {
    for (const sheet of this.box.children) {
      const { top, bottom, height } = sheet.getBoundingClientRect();
      if (!this.emptied.has(sheet) && sheet.nextElementSibling && bottom > 0 && top < innerHeight) {
        document.documentElement.style.setProperty("--sheet", `${height}px`);
        return;
      }
    }
  }

  card(index) {
    const { id } = this.order[index] ?? {};
    return id ? this.box.querySelector(`[data-id="${id}"]`) : null;
  }

  indexOf(card) {
    const sheet = card.parentElement;
    return sheet.first + [...sheet.children].indexOf(card);
  }
}
