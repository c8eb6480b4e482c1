"use strict";
(() => {
  const COLOURS = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#B8A800", "#882255"];
  const GREY = "rgba(140,140,140,.55)", PALE = "rgba(140,140,140,.25)", ROWS = 25;

  // an element with properties and children; text is never read as HTML
  function el(name, props = {}, ...children) {
    const made = Object.assign(document.createElement(name), props);
    made.append(...children);
    return made;
  }

  async function unpacked(text) {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
  }

  function chooser(label, options, change) {
    const select = el("select", { onchange: () => change(Number(select.value)) });
    options.forEach((text, place) => select.append(el("option", { value: place, textContent: text })));
    return el("label", {}, label + " ", select);
  }

  function shown(value, digits = 3) {
    if (value === null || value === undefined) return "–";
    const text = Math.abs(value) >= 100 || Number.isInteger(value) ? value.toFixed(0) : value.toPrecision(digits);
    return String(Number(text)).replace("-", "−");
  }

  // ---- my gene -------------------------------------------------------------------------------------------------
  function genes(root, data) {
    const state = { measure: 0, sort: "strength", down: true, text: "", rows: ROWS, open: -1 };
    const table = el("table", { className: "pl-genes" }), card = el("div"), more = el("p");
    const digits = Math.max(2, String(data.names.length).length); // strength is a rank: fewer make equals of neighbours
    const search = el("input", { type: "search", placeholder: "gene or perturbation", ariaLabel: "search" });
    search.oninput = () => { state.text = search.value.trim().toLowerCase(); state.rows = ROWS; draw(); };
    const measures = data.measures.map((part) => part.title);
    const pick = chooser("Show", measures, (place) => { state.measure = place; draw(); });
    root.replaceChildren(el("div", { className: "pl-bar" }, el("label", {}, "Search ", search), pick), card,
      el("div", { className: "pl-wide" }, table), more);

    function column(key) {
      if (typeof key === "number") return data.measures[state.measure].values[key];
      return key === "name" ? data.names : data[key];
    }
    function order() {
      const values = column(state.sort), sign = state.down ? -1 : 1;
      const found = data.names.map((_, row) => row).filter((row) => data.names[row].toLowerCase().includes(state.text));
      const exact = (row) => data.names[row].toLowerCase() === state.text;
      return found.sort((a, b) => {
        if (exact(a) !== exact(b)) return exact(a) ? -1 : 1;
        if (values[a] === null || values[b] === null) return (values[a] === null) - (values[b] === null);
        return sign * (values[a] < values[b] ? -1 : values[a] > values[b] ? 1 : 0);
      });
    }
    function head(key, text, title) {
      const mark = state.sort === key ? (state.down ? " ▼" : " ▲") : "";
      const press = () => { state.down = state.sort === key ? !state.down : key !== "name"; state.sort = key; draw(); };
      return el("th", { title, scope: "col", ariaSort: mark ? (state.down ? "descending" : "ascending") : "none" },
        el("button", { type: "button", textContent: text + mark, onclick: press }));
    }
    function line(row) {
      const measure = data.measures[state.measure], values = measure ? measure.values.map((part) => part[row]) : [];
      const cells = values.map((value, model) => el("td", {
        textContent: shown(value) + (measure.q && measure.q[model][row] !== null && measure.q[model][row] <= 0.05 ? " *" : "") }));
      const name = el("button", { type: "button", textContent: data.names[row], onclick: () => { state.open = row; detail(); } });
      return el("tr", {}, el("td", {}, name), el("td", { textContent: shown(data.cells[row]) }),
        el("td", { textContent: shown(data.strength[row], digits) }), ...cells);
    }
    function draw() {
      const rows = order(), measure = data.measures[state.measure];
      const heads = [head("name", "Perturbation"), head("cells", "Cells"), head("strength", "Strength", data.about.strength),
        ...(measure ? data.models.map((model, place) => head(place, model, measure.about)) : [])];
      table.replaceChildren(el("caption", { textContent: measure ? `${measure.title}: ${measure.about}` : "" }),
        el("thead", {}, el("tr", {}, ...heads)), el("tbody", {}, ...rows.slice(0, state.rows).map(line)));
      const press = () => { state.rows *= 4; draw(); };
      more.replaceChildren(`${Math.min(state.rows, rows.length)} of ${rows.length}. `,
        ...(rows.length > state.rows ? [el("button", { type: "button", className: "pl-button", textContent: "Show more", onclick: press })] : []));
      if (state.text && rows.length && data.names[rows[0]].toLowerCase() === state.text) { state.open = rows[0]; detail(); }
    }
    function detail() {
      const row = state.open, heads = ["", ...data.models].map((text) => el("th", { textContent: text, scope: "col" }));
      const line_ = (title, texts) => el("tr", {}, el("td", { textContent: title }), ...texts.map((text) => el("td", { textContent: text })));
      const lines = data.measures.map((part) => line_(part.title, part.values.map((values, model) =>
        shown(values[row]) + (part.q && part.q[model][row] !== null ? ` (q ${shown(part.q[model][row], 2)})` : ""))));
      if (data.near.length) lines.push(line_("Most similar", data.near.map((list) => (list[row] || []).map((at) => data.names[at]).join(", ") || "–")));
      const pairs = data.pairs.filter((pair) => pair[0] === row || pair[1] === row);
      if (data.known[row]) lines.push(line_(`Known partners recalled (of ${data.known[row]})`, data.models.map((_, model) => {
        const names = pairs.filter((pair) => pair[3].includes(model)).map((pair) => data.names[pair[0] === row ? pair[1] : pair[0]]);
        return names.length ? `${names.length}: ${names.slice(0, 12).join(", ")}${names.length > 12 ? ", …" : ""}` : "0"; })));
      const about = `${shown(data.cells[row])} cells; strength ${shown(data.strength[row], digits)}` +
        (data.expression[row] === null ? "" : `; expression of the target ${shown(data.expression[row])} (mean, log-normalised)`);
      card.replaceChildren(el("div", { className: "pl-card" }, el("b", { textContent: data.names[row] }), " ", about,
        el("div", { className: "pl-wide" }, el("table", { className: "pl-genes" }, el("thead", {}, el("tr", {}, ...heads)), el("tbody", {}, ...lines)))));
    }
    draw();
  }

  // ---- maps ----------------------------------------------------------------------------------------------------
  function maps(root, data) {
    const state = { by: 0, marked: -1 }, legend = el("p", { className: "pl-legend" }), tip = el("p", { className: "pl-tip pl-grey" });
    const list = "pl-list-" + Math.random().toString(36).slice(2);
    const names = el("datalist", { id: list }, ...data.perturbations.map((value) => el("option", { value })));
    const mark = el("input", { type: "search", placeholder: "perturbation" });
    mark.setAttribute("list", list);
    mark.oninput = () => { state.marked = data.perturbations.indexOf(mark.value.trim()); draw(); };
    const panels = data.models.map((title, model) => {
      const canvas = el("canvas", { width: 520, height: 520, role: "img", ariaLabel: `UMAP of ${title}` });
      canvas.onpointermove = (event) => point(canvas, model, event);
      canvas.onpointerleave = () => tip.replaceChildren("\u00a0");
      return { canvas, model, figure: el("figure", {}, canvas, el("figcaption", { textContent: title })) };
    });
    root.replaceChildren(el("div", { className: "pl-bar" }, chooser("Colour by", ["perturbation", "batch", "control"], (place) => { state.by = place; draw(); }),
      el("label", {}, "Mark ", mark), names), legend, el("div", { className: "pl-grid" }, ...panels.map((panel) => panel.figure)), tip);

    const strong = new Map(data.named.map((name, place) => [data.perturbations.indexOf(name), COLOURS[place % COLOURS.length]]));
    const batch = (number) => `hsl(${Math.round((number * 360) / data.batches.length)} 65% ${number % 2 ? 42 : 58}%)`;
    function colour(cell) {
      if (state.marked >= 0) return data.p[cell] === state.marked ? COLOURS[4] : PALE;
      if (state.by === 1) return batch(data.b[cell]);
      if (state.by === 2) return data.c[cell] ? COLOURS[0] : PALE;
      return strong.get(data.p[cell]) || (data.c[cell] ? GREY : PALE);
    }
    function draw() {
      const colours = data.p.map((_, cell) => colour(cell));
      const cells = data.p.map((_, cell) => cell).sort((a, b) => (colours[a] === PALE ? 0 : 1) - (colours[b] === PALE ? 0 : 1));
      panels.forEach(({ canvas, model }) => paint(canvas, model, cells, colours));
      const entries = state.marked >= 0 ? [[data.perturbations[state.marked], COLOURS[4]], ["other cells", PALE]]
        : state.by === 1 ? (data.batches.length > 24 ? [[`${data.batches.length} batches, a colour each`, batch(0)]] : data.batches.map((name, number) => [name, batch(number)]))
        : state.by === 2 ? [["control", COLOURS[0]], ["perturbed", PALE]]
        : [...data.named.map((name, place) => [name, COLOURS[place % COLOURS.length]]), ["control", GREY], ["other perturbations", PALE]];
      legend.replaceChildren(...entries.map(([text, background]) => { const dot = el("i"); dot.style.background = background; return el("span", {}, dot, text); }));
    }
    function place(canvas, model, cell) {
      const x = data.x[model][cell];
      return x === null ? null : [10 + (x / 999) * (canvas.width - 20), 10 + (data.y[model][cell] / 999) * (canvas.height - 20)];
    }
    function paint(canvas, model, cells, colours) {
      const pen = canvas.getContext("2d"), size = data.p.length > 1200 ? 2.6 : 3.6;
      pen.clearRect(0, 0, canvas.width, canvas.height);
      for (const cell of cells) {
        const at = place(canvas, model, cell);
        if (!at) continue;
        pen.fillStyle = colours[cell];
        pen.beginPath();
        pen.arc(at[0], at[1], colours[cell] === PALE ? size * 0.8 : size, 0, 7);
        pen.fill();
      }
    }
    function point(canvas, model, event) {
      const box = canvas.getBoundingClientRect(), scale = canvas.width / box.width;
      const x = (event.clientX - box.left) * scale, y = (event.clientY - box.top) * scale;
      let best = -1, least = 15 * 15;
      data.p.forEach((_, cell) => {
        const at = place(canvas, model, cell), far = at ? (at[0] - x) ** 2 + (at[1] - y) ** 2 : Infinity;
        if (far < least) { least = far; best = cell; }
      });
      tip.textContent = best < 0 ? "\u00a0" : `${data.perturbations[data.p[best]]}, ${data.batches[data.b[best]]}`;
    }
    draw();
  }

  function copy(button) {
    button.onclick = () => {
      const text = document.getElementById(button.dataset.plCopy);
      getSelection().selectAllChildren(text);
      button.textContent = document.execCommand("copy") ? "Copied" : "Selected: press Ctrl-C";
    };
  }

  // data sets of one kind are drawn when their part of the page is opened
  function start() {
    document.querySelectorAll("[data-pl-copy]").forEach(copy);
    document.querySelectorAll(".pl-live").forEach(async (root) => {
      if (!("DecompressionStream" in globalThis)) return;
      const fill = { genes, maps }[root.dataset.plKind];
      fill(root, await unpacked(root.dataset.plData));
    });
  }
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
