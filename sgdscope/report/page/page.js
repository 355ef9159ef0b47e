// Draws the figures, carries the chosen batch size from each to all others and to the tables, and sorts these.
"use strict";
(() => {
  const { panels, data, tables, descriptions } = JSON.parse(document.getElementById("data").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const narrow = matchMedia("(max-width: 40rem)");
  const buttons = [...document.querySelectorAll("[data-size]")];
  const sizes = new Set(buttons.map((button) => Number(button.dataset.size)));
  const views = new Map();
  const sheets = [];
  let chosen = 0;

  // Data are kept as columns, once for all figures; Vega reads rows.
  const rowsOf = (columns) => {
    const names = Object.keys(columns);
    return (columns[names[0]] ?? []).map((_, row) => Object.fromEntries(names.map((name) => [name, columns[name][row]])));
  };
  const datasets = Object.fromEntries(Object.entries(data).map(([name, columns]) => [name, rowsOf(columns)]));

  // ---- Figures

  // Text has the page's own colour, so that it follows when the page turns dark or is printed.
  const text = { labelColor: "currentColor", titleColor: "currentColor" };
  const config = () => ({
    background: null,
    font: getComputedStyle(document.body).fontFamily,
    axis: {
      ...text,
      labelFontSize: narrow.matches ? 11 : 12, labelOpacity: 0.75, titleFontSize: 12.5, titleFontWeight: 500, titlePadding: 8,
      domainColor: "currentColor", domainOpacity: 0.35, tickColor: "currentColor", tickOpacity: 0.35, tickSize: 4,
      gridColor: "currentColor", gridOpacity: 0.09,
    },
    legend: {
      ...text,
      symbolBaseFillColor: "currentColor", layout: { top: { anchor: "start", direction: "vertical" } },
      labelFontSize: 12.5, titleFontSize: 12.5, titleFontWeight: 500, rowPadding: 3, columnPadding: 16,
      ...(narrow.matches ? { orient: "bottom", direction: "horizontal", columns: 5 } : {}),
    },
    title: { color: "currentColor", anchor: "start", fontSize: 13, fontWeight: 600, offset: 8 },
    text: { fontSize: 12 },
    view: { stroke: null },
  });

  const specificationOf = ({ spec, data: names }, first) => ({
    // On dark paper the dark end of the batch sizes' colours is left out, not the light one.
    ...JSON.parse(JSON.stringify(spec), (key, value) => (key === "extent" && dark.matches ? [0.28, 1] : value)),
    width: "container",
    height: first ? (narrow.matches ? 150 : 215) : narrow.matches ? 240 : 300,
    datasets: Object.fromEntries(names.map((name) => [name, datasets[name]])),
  });

  // A mark of one batch size: a point or a column has it, a line where all its points do.
  const sizeOf = (item) => {
    const size = item?.datum?.batch_size;
    const marks = { symbol: [], rule: [], line: item?.mark.items, area: item?.mark.items }[item?.mark.marktype];
    return marks?.every((other) => other.datum.batch_size === size) && sizes.has(size) ? size : null;
  };

  let drawings = 0;
  async function draw() {
    const mine = ++drawings;
    for (const place of document.querySelectorAll("[data-panel]")) {
      if (mine !== drawings) return; // the screen has changed since, and all are drawn anew
      views.get(place)?.finalize();
      const { view } = await vegaEmbed(place, specificationOf(panels[place.dataset.panel], place.closest(".first")), {
        renderer: "svg",
        config: config(),
        actions: { export: true, source: false, compiled: false, editor: false },
        tooltip: { disableDefaultStyle: true },
      });
      views.set(place, view);
      view.addEventListener("click", (_, item) => {
        const size = sizeOf(item);
        if (size !== null) choose(size === chosen ? 0 : size);
      });
      view.signal("chosen", chosen).run();
    }
    document.documentElement.dataset.drawn = views.size;
  }

  function choose(size) {
    chosen = size;
    for (const button of buttons) button.setAttribute("aria-pressed", Number(button.dataset.size) === chosen);
    for (const view of views.values()) view.signal("chosen", chosen).runAsync();
    for (const sheet of sheets) sheet();
    const trials = tables.trials.batch_size.filter((size) => !chosen || size === chosen).length;
    document.getElementById("chosen").textContent = chosen ? `${trials.toLocaleString("en")} trials` : "";
  }

  for (const button of buttons) button.addEventListener("click", () => choose(Number(button.dataset.size)));
  document.querySelector(".sizes").addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const next = buttons[buttons.indexOf(event.target) + step];
    if (!next) return;
    event.preventDefault();
    next.focus();
    next.click();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && chosen) choose(0);
  });

  // ---- Tables

  const MOST_ROWS = 500; // a browser is slow with more; copying takes all
  const inOrder = (a, b) => {
    const [x, y] = [a, b].map((value) => (typeof value === "number" ? value : parseFloat(value)));
    return Number.isNaN(x) || Number.isNaN(y) ? String(a ?? "").localeCompare(String(b ?? "")) : x - y;
  };
  const csv = (rows) =>
    rows.map((row) => row.map((value) => String(value ?? "").replace(/.*[",\n].*/s, (cell) => `"${cell.replaceAll('"', '""')}"`)).join(",")).join("\n");

  async function copy(content) {
    try {
      await navigator.clipboard.writeText(content);
    } catch {
      // Where a page may not write to the clipboard, it may copy what is selected.
      const area = document.body.appendChild(Object.assign(document.createElement("textarea"), { value: content }));
      area.select();
      document.execCommand("copy");
      area.remove();
    }
  }

  function element(name, attributes, ...children) {
    const made = Object.assign(document.createElement(name), attributes);
    made.append(...children);
    return made;
  }

  // Shows rows under headings, of the chosen batch size alone where there is one.
  function show(place, headings, rows, described = {}) {
    const ofSize = headings.findIndex((heading) => heading === "batch_size" || heading === "batch");
    let sorted = -1;
    let direction = 1;
    const visible = () => {
      const mine = rows.filter((row) => !chosen || ofSize < 0 || Number(row[ofSize]) === chosen);
      return sorted < 0 ? mine : mine.sort((a, b) => direction * inOrder(a[sorted], b[sorted]));
    };
    const count = element("span", { role: "status" });
    const button = element("button", { type: "button", textContent: "Copy as CSV" });
    button.addEventListener("click", async () => {
      const mine = visible();
      await copy(csv([headings, ...mine]));
      count.textContent = `Copied ${mine.length.toLocaleString("en")} rows.`;
    });
    const heads = headings.map((heading, column) => {
      const label = element("button", { type: "button", textContent: heading, title: described[heading] ?? "" });
      label.addEventListener("click", () => {
        direction = sorted === column ? -direction : 1;
        sorted = column;
        fill();
      });
      return element("th", { scope: "col" }, label);
    });
    const body = element("tbody", {});
    function fill() {
      const mine = visible();
      heads.forEach((head, column) => {
        if (column === sorted) head.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
        else head.removeAttribute("aria-sort");
      });
      body.replaceChildren(
        ...mine.slice(0, MOST_ROWS).map((row) => element("tr", {}, ...row.map((value) => element("td", { textContent: value ?? "" })))),
      );
      const all = `${mine.length.toLocaleString("en")} rows`;
      count.textContent = mine.length > MOST_ROWS ? `The first ${MOST_ROWS} of ${all}; copying takes all.` : `${all}.`;
    }
    place.replaceChildren(element("table", {}, element("thead", {}, element("tr", {}, ...heads)), body));
    place.before(element("div", { className: "tools" }, button, count));
    sheets.push(fill);
    fill();
  }

  for (const details of document.querySelectorAll("[data-table]")) {
    details.addEventListener("toggle", () => {
      const columns = Object.values(tables[details.dataset.table]);
      const rows = columns[0].map((_, row) => columns.map((column) => column[row]));
      const name = details.dataset.table;
      show(details.querySelector(".scroll"), Object.keys(tables[name]), rows, descriptions[name]);
    }, { once: true });
  }
  const summary = document.getElementById("summary");
  const cells = (row) => [...row.cells].map((cell) => cell.textContent);
  show(summary.parentElement, cells(summary.tHead.rows[0]), [...summary.tBodies[0].rows].map(cells));

  // A link to a table or a claim opens it.
  document.addEventListener("click", (event) => {
    const target = event.target.closest?.('a[href^="#"]');
    const led = target && document.getElementById(target.hash.slice(1));
    if (led?.tagName === "DETAILS") led.open = true;
  });

  draw();
  for (const media of [dark, narrow]) media.addEventListener("change", draw);
})();
