"use strict";
const darkness = matchMedia("(prefers-color-scheme: dark)");

// Text and grid follow the page; the arms' colours are chosen for both backgrounds.
function themed(layout) {
  const style = getComputedStyle(document.documentElement);
  const read = (name) => style.getPropertyValue(name).trim();
  const axis = { gridcolor: read("--line"), linecolor: read("--line"), tickcolor: read("--line") };
  const panel = { bgcolor: read("--card"), bordercolor: read("--line"), font: { color: read("--text") } };
  return {
    ...layout,
    font: { family: style.fontFamily, size: 12, color: read("--muted") },
    hoverlabel: { ...layout.hoverlabel, ...panel },
    xaxis: { ...layout.xaxis, ...axis },
    yaxis: { ...layout.yaxis, ...axis },
  };
}

function draw(element) {
  element.spec ??= JSON.parse(element.querySelector("script")?.textContent ?? "null");
  if (element.spec === null) return;
  const config = { responsive: true, displayModeBar: false, scrollZoom: false };
  Plotly.react(element, element.spec.data, themed(element.spec.layout), config);
}

// A plot inside a closed <details> has no width yet.
const visible = () => [...document.querySelectorAll(".plot")].filter((plot) => plot.offsetParent !== null);

function toggle(button) {
  const shown = button.getAttribute("aria-pressed") !== "true";
  button.setAttribute("aria-pressed", shown);
  for (const plot of button.closest(".legend").nextElementSibling.querySelectorAll(".plot")) {
    for (const trace of plot.spec.data) if (trace.name === button.dataset.arm) trace.visible = shown;
    draw(plot);
  }
}

visible().forEach(draw);
darkness.addEventListener("change", () => visible().forEach(draw));
// On the document, since a page that follows a run makes its figures later; "toggle" does not bubble.
document.addEventListener("toggle", () => visible().forEach(draw), true);
document.addEventListener("click", (event) => {
  const button = event.target.closest(".legend button");
  if (button) toggle(button);
});
