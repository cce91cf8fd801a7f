// Two pictures side by side, or one over the other with a border that slides.
"use strict";

const pair = byId("pair");
const overlay = byId("overlay");
const slide = byId("slide");

const show = () => pair.style.setProperty("--cut", `${slide.value}%`);

overlay.addEventListener("click", () => {
  const on = overlay.getAttribute("aria-pressed") !== "true";
  overlay.setAttribute("aria-pressed", String(on));
  pair.classList.toggle("over", on);
  byId("sliding").hidden = !on;
  show();
  if (on) slide.focus();
});
slide.addEventListener("input", show);
