"use strict";
const darkness = matchMedia("(prefers-color-scheme: dark)");
const plots = () => [...document.querySelectorAll(".plot")];

// Plotly is most of a page's bytes: it comes compressed, and is inflated when the first figure is looked at.
let library = null;
async function inflate() {
  const bytes = Uint8Array.from(atob(document.getElementById("plotly").textContent), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(stream).text();
  document.head.append(script);
}

const read = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// Text and grid follow the page; the arms' colours are chosen for both backgrounds.
function themed(layout) {
  const axis = { gridcolor: read("--line"), linecolor: read("--line"), tickcolor: read("--line") };
  const panel = { bgcolor: read("--card"), bordercolor: read("--line"), font: { color: read("--text") } };
  return {
    uirevision: "kept", // a zoom survives a click on the legend
    ...layout,
    font: { family: getComputedStyle(document.documentElement).fontFamily, size: 12, color: read("--muted") },
    hoverlabel: { ...layout.hoverlabel, ...panel },
    xaxis: { ...layout.xaxis, ...axis },
    yaxis: { ...layout.yaxis, ...axis },
  };
}

const specOf = (plot) => (plot.spec ??= JSON.parse(plot.querySelector("script")?.textContent ?? "null"));

async function draw(element) {
  if (specOf(element) === null) return;
  element.drawn = true;
  try {
    await (library ??= window.Plotly ? Promise.resolve() : inflate());
    const config = { responsive: true, displayModeBar: false, scrollZoom: false };
    await Plotly.react(element, element.spec.data, themed(element.spec.layout), config);
  } catch (error) {
    console.error(error);
    element.textContent = "This browser cannot draw the figure: a newer one can.";
  }
}

// A figure is drawn when it comes near the window; one inside a closed <details> does so when that is opened.
const near = new IntersectionObserver(
  (entries) => {
    for (const entry of entries) if (entry.isIntersecting && !entry.target.drawn) draw(entry.target);
  },
  { rootMargin: "600px" }
);

// Draws what changed where it was drawn before; a page that follows a run calls it, as it makes its figures later.
function refresh() {
  for (const plot of plots()) plot.drawn ? draw(plot) : near.observe(plot);
}

function toggle(button) {
  const shown = button.getAttribute("aria-pressed") !== "true";
  button.setAttribute("aria-pressed", shown);
  for (const plot of button.closest(".legend").nextElementSibling.querySelectorAll(".plot")) {
    for (const trace of specOf(plot)?.data ?? []) if (trace.name === button.dataset.arm) trace.visible = shown;
    if (plot.drawn) draw(plot);
  }
}

async function save(button) {
  const plot = button.closest("figure").querySelector(".plot");
  await draw(plot);
  const figure = { data: plot.spec.data, layout: { ...themed(plot.spec.layout), paper_bgcolor: read("--card") } };
  const filename = button.dataset.save.trim().replace(/[^\p{L}\p{N}]+/gu, "-");
  Plotly.downloadImage(figure, { format: "svg", filename, width: plot.clientWidth, height: plot.clientHeight });
}

const plain = (node) => node.textContent.replaceAll("\u2212", "-").replace(/\s+/g, " ").trim();

// A cell is its text and a detail: an interval, a verdict.
function parts(cell) {
  const text = cell.cloneNode(true);
  const details = [...text.querySelectorAll("small, .chip")];
  const detail = details.map(plain).join(" ").trim();
  for (const part of details) part.remove();
  return plain(text) ? [plain(text), detail] : [detail, ""];
}

function csv(table) {
  const rows = [...table.rows].map((row) => [...row.cells].map(parts));
  const detailed = rows[0].map((_, i) => rows.some((row) => row[i][1]));
  const quoted = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  return rows
    .map(([...cells], n) => cells.flatMap(([text, detail], i) =>
      detailed[i] ? [text, n ? detail : `${text} detail`.trim()] : [text]).map(quoted).join(","))
    .join("\n");
}

async function copy(button) {
  const text = csv(button.closest(".tools").previousElementSibling.querySelector("table"));
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = document.body.appendChild(document.createElement("textarea")); // where the page has no clipboard
    area.value = text;
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  button.textContent = "copied";
  setTimeout(() => (button.textContent = "copy as CSV"), 1500);
}

// Numbers by value, other texts by alphabet; cells without a value stay last.
function sort(header) {
  const rows = [...header.closest("table").tBodies[0].rows];
  const falling = header.getAttribute("aria-sort") === "ascending";
  const keys = new Map(rows.map((row) => [row, parts(row.cells[header.cellIndex])[0]]));
  const numeric = [...keys.values()].every((key) => key === "\u2013" || key === "" || !isNaN(parseFloat(key)));
  const compare = (a, b) => (numeric ? parseFloat(a) - parseFloat(b) : a.localeCompare(b));
  const empty = (key) => key === "\u2013" || key === "";
  rows.sort((one, other) => {
    const [a, b] = [keys.get(one), keys.get(other)];
    if (empty(a) || empty(b)) return empty(a) - empty(b);
    return falling ? compare(b, a) : compare(a, b);
  });
  for (const other of header.parentNode.cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", falling ? "descending" : "ascending");
  header.closest("table").tBodies[0].append(...rows);
}

refresh();
darkness.addEventListener("change", refresh);
addEventListener("beforeprint", () => plots().forEach(draw));
// On the document, since a page that follows a run makes its figures and tables later.
document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.closest(".legend")) toggle(button);
  else if (button.closest("thead")) sort(button.closest("th"));
  else if ("copy" in button.dataset) copy(button);
  else if ("save" in button.dataset) save(button);
});
