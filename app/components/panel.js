// Stands in the frame of a plot: its buttons, its clicks for Python, and what is drawn over it without redrawing it
// (cursor, pins, range, and what is hovered in another panel).

const RED = "#e3242b";
const SVG = "http://www.w3.org/2000/svg";
const NAMES = {
  png: ["PNG", "Save as PNG"],
  svg: ["SVG", "Save as SVG"],
  pdf: ["PDF", "Save as PDF"],
  csv: ["CSV", "Save the numbers as CSV"],
  link: ["Link", "Copy a link to this panel as it is now"],
  code: ["Code", "The Python and the command that make this figure"],
  add: ["Keep", "Add to the session"],
  full: ["Full", "Full screen"],
};

function plain(value) {
  if (value === undefined || value === null) return null;
  if (ArrayBuffer.isView(value)) return Array.from(value);
  return Array.isArray(value) ? value.map(plain) : value;
}

function shape(layer, kind, attributes) {
  const mark = document.createElementNS(SVG, kind);
  for (const [name, value] of Object.entries(attributes)) mark.setAttribute(name, value);
  layer.append(mark);
}

function overlay(plot) {
  const frame = plot.querySelector(".svg-container");
  if (!frame || !plot._fullLayout || !plot._fullLayout._plots) return null;
  let layer = frame.querySelector(":scope > svg.selection-cursor");
  if (!layer) {
    layer = document.createElementNS(SVG, "svg");
    layer.setAttribute("class", "selection-cursor");
    layer.style.cssText = "position:absolute;inset:0;width:100%;height:100%;pointer-events:none";
    frame.append(layer);
  }
  layer.replaceChildren();
  return layer;
}

function lines(layer, { xaxis, yaxis }, { x, y, colour }, dash) {
  const look = { stroke: colour ?? RED, "stroke-width": colour ? 1.5 : 1, ...(dash ? { "stroke-dasharray": dash } : {}) };
  const [left, top, width, height] = [xaxis._offset, yaxis._offset, xaxis._length, yaxis._length];
  if (x !== null && x !== undefined) {
    const at = xaxis.d2p(x);
    if (at >= 0 && at <= width) shape(layer, "line", { x1: left + at, y1: top, x2: left + at, y2: top + height, ...look });
  }
  if (y !== null && y !== undefined) {
    const at = yaxis.d2p(y);
    if (at >= 0 && at <= height) shape(layer, "line", { x1: left, y1: top + at, x2: left + width, y2: top + at, ...look });
  }
}

function draw(plot, data, hovered) {
  const layer = overlay(plot);
  if (!layer) return;
  for (const subplot of Object.values(plot._fullLayout._plots)) {
    const { xaxis, yaxis } = subplot;
    if (data.span) {
      const [from, to] = [xaxis.d2p(data.span[0] - 0.5), xaxis.d2p(data.span[1] + 0.5)];
      const [start, end] = [Math.max(0, from), Math.min(xaxis._length, to)];
      if (end > start)
        shape(layer, "rect", {
          x: xaxis._offset + start, y: yaxis._offset, width: end - start, height: yaxis._length,
          fill: RED, "fill-opacity": 0.09,
        });
    }
    for (const mark of [...data.marks].reverse()) lines(layer, subplot, mark, null);
    if (hovered) lines(layer, subplot, { ...hovered, colour: "#8c8c8c" }, "3 2");
  }
}

// Parts of a selection, as the axes of this figure show them, and back. A block stands at the point after it.
function partsAt(axes, point) {
  const found = {};
  for (const side of ["x", "y"]) {
    const part = axes?.[side];
    const value = typeof point[side] === "number" ? Math.round(point[side]) : null;
    if (!part || value === null) continue;
    if (side === "y" && axes.rows) {
      if (axes.rows[value] !== undefined) found[part] = axes.rows[value];
    } else if (part === "block") found.point = value + 1;
    else found[part] = value;
  }
  return found;
}

function placeOf(axes, parts) {
  const place = {};
  for (const side of ["x", "y"]) {
    const part = axes?.[side];
    const value = part === "block" ? (parts.point === undefined ? undefined : parts.point - 1) : parts[part];
    if (!part || value === undefined) continue;
    place[side] = side === "y" && axes.rows ? axes.rows.indexOf(value) : value;
    if (place[side] < 0) delete place[side];
  }
  return Object.keys(place).length ? { x: place.x ?? null, y: place.y ?? null } : null;
}

function save({ name, mime, data }) {
  const bytes = Uint8Array.from(atob(data), (sign) => sign.charCodeAt(0));
  const address = URL.createObjectURL(new Blob([bytes], { type: mime }));
  const anchor = document.createElement("a");
  anchor.href = address;
  anchor.download = name;
  document.body.append(anchor);
  anchor.click();
  anchor.remove();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

function flash(button, text) {
  const before = button.textContent;
  button.textContent = text;
  setTimeout(() => (button.textContent = before), 1200);
}

function copyLink(button, address) {
  navigator.clipboard.writeText(address).then(
    () => flash(button, "copied"),
    () => window.prompt("Copy this link", address),
  );
}

function fullScreen(place) {
  place?.querySelector('.modebar-btn[data-title*="ullscreen"]')?.click();
}

function buttons(root, state) {
  const wanted = state.data.buttons.join();
  if (root.dataset.buttons !== wanted) {
    root.dataset.buttons = wanted;
    root.setAttribute("role", "toolbar");
    root.replaceChildren(
      ...state.data.buttons.map((name) => {
        const button = document.createElement("button");
        [button.textContent, button.title] = NAMES[name];
        button.dataset.do = name;
        button.setAttribute("aria-label", NAMES[name][1]);
        button.onclick = () => {
          if (name === "link") copyLink(button, state.data.address);
          else if (name === "full") fullScreen(document.querySelector(`.st-key-${state.data.target}`));
          else {
            if (name !== "code") button.setAttribute("aria-busy", "true");
            state.ask(name);
          }
        };
        return button;
      }),
    );
  }
  for (const button of root.children) button.removeAttribute("aria-busy");
}

export default function ({ data, parentElement, setTriggerValue }) {
  const root = parentElement.querySelector(".root");
  const state = (root.state ??= { plot: null, hovered: null });
  state.data = data;
  state.send = (point) => setTriggerValue("clicked", point);
  state.ask = (name) => setTriggerValue("asked", { do: name, at: Date.now() });
  buttons(root, state);
  if (data.download && state.saved !== data.download.id) {
    state.saved = data.download.id;
    save(data.download);
  }

  if (data.reveal) document.querySelector(`.st-key-panel-${data.label}`)?.scrollIntoView({ block: "center" });

  const attach = () => {
    const plot = document.querySelector(`.st-key-${data.target} .js-plotly-plot`);
    if (!plot || !plot.on || plot === state.plot) return;
    state.plot = plot;
    const tell = (parts) =>
      window.dispatchEvent(new CustomEvent("eigenscope:hover", { detail: { from: data.target, parts } }));
    plot.on("plotly_click", (event) => {
      if (!state.data.clickable) return;
      const point = event.points[0];
      state.send({
        x: plain(point.x), y: plain(point.y), customdata: plain(point.customdata), curve: point.curveNumber, at: Date.now(),
      });
    });
    plot.on("plotly_hover", (event) => tell(partsAt(state.data.axes, event.points[0])));
    plot.on("plotly_unhover", () => tell({}));
    plot.on("plotly_afterplot", () => draw(plot, state.data, state.hovered));
    draw(plot, state.data, state.hovered);
  };

  attach();
  if (state.plot) draw(state.plot, data, state.hovered);
  const follow = ({ detail }) => {
    const hovered = detail.from === data.target ? null : placeOf(data.axes, detail.parts);
    if (!state.plot?.isConnected || (hovered === null && state.hovered === null)) return;
    state.hovered = hovered;
    draw(state.plot, state.data, hovered);
  };
  window.addEventListener("eigenscope:hover", follow);
  const place = document.querySelector(`.st-key-${data.target}`);
  const watcher = new MutationObserver(attach);
  if (place) watcher.observe(place, { childList: true, subtree: true });
  // Plotly's code is loaded on the first plot of a session, after the plot's place is in the page.
  const retry = setInterval(() => (state.plot?.isConnected ? null : attach()), 250);
  return () => {
    watcher.disconnect();
    clearInterval(retry);
    window.removeEventListener("eigenscope:hover", follow);
  };
}
