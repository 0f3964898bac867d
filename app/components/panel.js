// Stands beside a plot of the page: sends its clicks to Python, and draws the cursor over it without redrawing it.

const RED = "#e3242b";
const SVG = "http://www.w3.org/2000/svg";

function plain(value) {
  if (value === undefined || value === null) return null;
  if (ArrayBuffer.isView(value)) return Array.from(value);
  return Array.isArray(value) ? value.map(plain) : value;
}

function line(layer, x1, y1, x2, y2) {
  const mark = document.createElementNS(SVG, "line");
  for (const [name, value] of Object.entries({ x1, y1, x2, y2, stroke: RED, "stroke-width": 1 })) {
    mark.setAttribute(name, value);
  }
  layer.append(mark);
}

function drawCursor(plot, cursor) {
  const frame = plot.querySelector(".svg-container");
  const layout = plot._fullLayout;
  if (!frame || !layout || !layout._plots) return;
  let layer = frame.querySelector(":scope > svg.selection-cursor");
  if (!layer) {
    layer = document.createElementNS(SVG, "svg");
    layer.setAttribute("class", "selection-cursor");
    layer.style.cssText = "position:absolute;inset:0;width:100%;height:100%;pointer-events:none";
    frame.append(layer);
  }
  layer.replaceChildren();
  for (const { xaxis, yaxis } of Object.values(layout._plots)) {
    if (cursor.x !== null) {
      const x = xaxis.d2p(cursor.x);
      if (x >= 0 && x <= xaxis._length)
        line(layer, xaxis._offset + x, yaxis._offset, xaxis._offset + x, yaxis._offset + yaxis._length);
    }
    if (cursor.y !== null) {
      const y = yaxis.d2p(cursor.y);
      if (y >= 0 && y <= yaxis._length)
        line(layer, xaxis._offset, yaxis._offset + y, xaxis._offset + xaxis._length, yaxis._offset + y);
    }
  }
}

export default function ({ data, parentElement, setTriggerValue }) {
  const root = parentElement.querySelector(".root");
  const state = (root.state ??= { plot: null });
  state.cursor = data.cursor;
  state.send = (point) => setTriggerValue("clicked", point);

  const attach = () => {
    const plot = document.querySelector(`.st-key-${data.target} .js-plotly-plot`);
    if (!plot || !plot.on || plot === state.plot) return;
    state.plot = plot;
    plot.on("plotly_click", (event) => {
      const point = event.points[0];
      state.send({ x: plain(point.x), y: plain(point.y), customdata: plain(point.customdata), curve: point.curveNumber });
    });
    plot.on("plotly_afterplot", () => drawCursor(plot, state.cursor));
    drawCursor(plot, state.cursor);
  };

  attach();
  if (state.plot) drawCursor(state.plot, state.cursor);
  const place = document.querySelector(`.st-key-${data.target}`);
  const watcher = new MutationObserver(attach);
  if (place) watcher.observe(place, { childList: true, subtree: true });
  // Plotly's code is loaded on the first plot of a session, after the plot's place is in the page.
  const retry = setInterval(() => (state.plot?.isConnected ? null : attach()), 250);
  return () => {
    watcher.disconnect();
    clearInterval(retry);
  };
}
