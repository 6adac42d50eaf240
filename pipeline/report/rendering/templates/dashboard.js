"use strict";
const shown = new Map(); // id of a live part -> its HTML as it was last received
let version = null;
let titles = "";

// Only parts that have changed are replaced, and they keep how far they were scrolled to the side.
function replaceParts(html) {
  const received = document.createElement("template");
  received.innerHTML = html;
  return [...received.content.querySelectorAll("[id]")].filter((part) => part.parentNode === received.content);
}

function update(container, html) {
  const parts = replaceParts(html);
  const ids = parts.map((part) => part.id);
  for (const old of [...container.children]) if (!ids.includes(old.id)) old.remove();
  for (const part of parts) {
    const old = document.getElementById(part.id);
    if (old && shown.get(part.id) === part.outerHTML) continue;
    shown.set(part.id, part.outerHTML);
    const scrolled = old ? [...old.querySelectorAll(".scroll")].map((box) => box.scrollLeft) : [];
    if (old) old.replaceWith(part);
    else container.append(part);
    part.querySelectorAll(".scroll").forEach((box, i) => (box.scrollLeft = scrolled[i] ?? 0));
  }
}

// Frames stay as they are, with what was opened, hidden or zoomed, for as long as the figures are the same ones.
function updateFigures(figures) {
  const box = document.getElementById("drawings");
  const names = JSON.stringify(figures.map((figure) => figure.html));
  if (names !== titles) {
    const open = new Set([...box.querySelectorAll("details[open] > summary")].map((summary) => summary.textContent));
    box.innerHTML = figures.map((figure) => `<article>${figure.html}</article>`).join("");
    for (const summary of box.querySelectorAll("summary")) summary.parentNode.open = open.has(summary.textContent);
    titles = names;
  }
  figures.forEach((figure, i) => {
    box.children[i].querySelectorAll(".plot").forEach((plot, j) => {
      const hidden = new Set((plot.spec?.data ?? []).filter((t) => t.visible === false).map((t) => t.name));
      plot.spec = JSON.parse(figure.panels[j]);
      for (const trace of plot.spec.data) if (hidden.has(trace.name)) trace.visible = false;
    });
  });
  refresh();
}

async function follow() {
  let pace = 2;
  try {
    const state = await (await fetch("/state.json")).json();
    pace = state.pace;
    document.title = `${state.title} · LiNeS Sweep`;
    document.querySelector(".brand").textContent = state.title;
    update(document.getElementById("status"), state.html.status);
    update(document.getElementById("details"), state.html.details);
    if (state.figures !== version && state.figures > 0) {
      updateFigures(await (await fetch("/figures.json")).json());
      version = state.figures;
    }
    document.body.classList.remove("lost");
  } catch (error) {
    console.error(error);
    document.body.classList.add("lost");
  }
  setTimeout(follow, 1000 * pace);
}

follow();
