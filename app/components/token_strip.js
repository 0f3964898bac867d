// The text as its tokens, coloured by one number a token. Everything shown goes through textContent.

const SETTLE_MS = 90; // arrow keys repeat faster than a page can follow

function build(root, data) {
  root.replaceChildren();
  const strip = document.createElement("div");
  strip.className = "strip";
  strip.tabIndex = 0;
  strip.setAttribute("role", "listbox");
  strip.setAttribute("aria-label", "Tokens of the text");
  data.tokens.forEach((text, index) => {
    const token = document.createElement("span");
    token.className = "token";
    token.textContent = text;
    token.dataset.pos = index;
    token.setAttribute("role", "option");
    strip.append(token);
  });
  const foot = document.createElement("div");
  foot.className = "foot";
  const told = document.createElement("span");
  told.className = "told";
  told.setAttribute("aria-live", "polite");
  const scale = document.createElement("span");
  scale.className = "scale";
  foot.append(told, scale);
  root.append(strip, foot);
  const tokens = [...strip.children];
  return { strip, told, scale, tokens, shown: data.identity, selected: null, range: null, anchor: null, sent: 0, pins: [], hinted: null };
}

function colour(view, data) {
  const special = new Set(data.special);
  view.tokens.forEach((token, index) => {
    const bin = data.bins ? data.bins[index] : null;
    const known = bin !== null && bin >= 0;
    token.style.backgroundColor = known ? data.palette[bin][0] : "";
    token.style.color = known ? data.palette[bin][1] : "";
    token.classList.toggle("missing", data.bins !== null && !known);
    token.classList.toggle("special", special.has(index));
  });
  view.scale.replaceChildren();
  if (!data.bins) return;
  const low = document.createElement("span");
  low.textContent = `${data.metric}  ${data.low}`;
  const ramp = document.createElement("span");
  ramp.className = "ramp";
  const stops = data.palette.filter((_, i) => i % 16 === 0 || i === data.palette.length - 1).map((pair) => pair[0]);
  ramp.style.background = `linear-gradient(90deg, ${stops.join(",")})`;
  const high = document.createElement("span");
  high.textContent = data.high;
  view.scale.append(low, ramp, high);
}

function describe(data, index) {
  const parts = [`${index}`, `“${data.tokens[index]}”`, `id ${data.ids[index]}`];
  if (data.values) parts.push(`${data.metric} ${data.values[index] === null ? `none: ${data.missing}` : data.values[index]}`);
  return parts.join("  ");
}

function tell(view, data, hovered) {
  if (hovered !== null) {
    view.told.textContent = describe(data, hovered);
  } else if (view.range) {
    const [a, b] = view.range;
    const known = data.values ? data.values.slice(a, b + 1).filter((v) => v !== null).map(Number) : [];
    const mean = known.length ? `  mean ${data.metric} ${(known.reduce((s, v) => s + v, 0) / known.length).toPrecision(4)}` : "";
    view.told.textContent = `${a}–${b}  ${b - a + 1} tokens${mean}${known.length ? ` (n ${known.length})` : ""}`;
  } else {
    view.told.textContent = view.selected === null ? "" : describe(data, view.selected);
  }
}

function paint(view, data) {
  const pinned = new Map(view.pins.map(({ pos, colour }) => [pos, colour]));
  view.tokens.forEach((token, index) => {
    const selected = index === view.selected;
    token.classList.toggle("selected", selected);
    token.setAttribute("aria-selected", selected);
    token.classList.toggle("ranged", view.range !== null && index >= view.range[0] && index <= view.range[1]);
    token.style.outline = pinned.has(index) ? `2px solid ${pinned.get(index)}` : "";
  });
  tell(view, data, null);
}

function hint(view, index) {
  view.tokens[view.hinted]?.classList.remove("hinted");
  view.hinted = index;
  view.tokens[index]?.classList.add("hinted");
}

// Keys belong to whatever takes text or steps by itself; everywhere else on the page they move the selection.
const OWN_KEYS =
  "input, textarea, select, [contenteditable=true], [role=slider], [role=dialog], [role=combobox], [role=radiogroup], " +
  "[role=tablist], [role=menu], [data-testid=stDataFrame]";

function reveal(view) {
  const token = view.tokens[view.selected];
  if (!token) return;
  const top = token.offsetTop - view.strip.offsetTop;
  if (top < view.strip.scrollTop) view.strip.scrollTop = top;
  else if (top + token.offsetHeight > view.strip.scrollTop + view.strip.clientHeight)
    view.strip.scrollTop = top + token.offsetHeight - view.strip.clientHeight;
}

export default function ({ data, parentElement, setTriggerValue }) {
  const root = parentElement.querySelector(".root");
  let view = root.view;
  if (!view || view.shown !== data.identity) {
    view = root.view = build(root, data);
  }
  view.strip.style.setProperty("--strip-height", data.height);
  colour(view, data);
  const known = window.eigenscopeSelected?.[data.strip];
  if (view.selected === null && known) {
    [view.selected, view.point, view.last, view.range, view.pins] = [known.selected, known.point, known.last, known.span, known.pins];
  }
  paint(view, data);
  reveal(view);

  const choose = (changes, wait = 0) => {
    view.pending = { ...view.pending, ...changes };
    if ("pos" in changes) view.selected = changes.pos;
    if ("span" in changes) view.range = changes.span;
    if ("point" in changes) view.point = changes.point;
    paint(view, data);
    reveal(view);
    clearTimeout(view.timer);
    view.timer = setTimeout(() => {
      view.timer = null;
      view.sent = Date.now();
      setTriggerValue("clicked", { ...view.pending, sent: view.sent });
      view.pending = {};
    }, wait);
  };
  const at = (event) => {
    const token = event.target.closest(".token");
    return token ? Number(token.dataset.pos) : null;
  };

  const follow = ({ detail }) => {
    // A choice that is on its way to the page must not be undone by the redraw of an earlier one.
    if (detail.strip !== data.strip || view.timer || detail.answered < view.sent) return;
    [view.selected, view.point, view.last, view.range, view.pins] = [detail.selected, detail.point, detail.last, detail.span, detail.pins];
    paint(view, data);
    reveal(view);
  };
  const hovered = ({ detail }) => {
    if (detail.from !== data.strip) hint(view, detail.parts.position ?? null);
  };
  const over = (position) => {
    tell(view, data, position);
    const parts = position === null ? {} : { position };
    window.dispatchEvent(new CustomEvent("eigenscope:hover", { detail: { from: data.strip, parts } }));
  };
  window.addEventListener("eigenscope:selected", follow);
  window.addEventListener("eigenscope:hover", hovered);

  view.strip.onmouseover = (event) => over(at(event));
  view.strip.onmouseleave = () => over(null);
  view.strip.onclick = (event) => {
    const index = at(event);
    if (index === null) return;
    if (event.shiftKey && view.selected !== null) {
      view.anchor ??= view.selected;
      choose({ span: [Math.min(view.anchor, index), Math.max(view.anchor, index)] });
      return;
    }
    view.anchor = null;
    const released = view.range ? { span: null } : {};
    choose({ pos: index === view.selected ? null : index, ...released });
  };
  const press = (event) => {
    const end = view.tokens.length - 1;
    const step = { ArrowLeft: -1, ArrowRight: 1, Home: -end, End: end }[event.key];
    const rise = { ArrowUp: 1, ArrowDown: -1 }[event.key];
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape") {
      view.anchor = null;
      choose(view.range ? { span: null } : { pos: null, released: true });
    } else if (rise !== undefined && view.last !== null && view.last !== undefined) {
      choose({ point: Math.min(view.last, Math.max(0, (view.point ?? 0) + rise)) }, SETTLE_MS);
    } else if (step !== undefined) {
      const move = (from) => Math.min(end, Math.max(0, from + step));
      if (event.shiftKey) {
        view.anchor ??= view.selected ?? 0;
        const [a, b] = view.range ?? [view.anchor, view.anchor];
        const moving = move(view.anchor === a ? b : a);
        choose({ span: [Math.min(view.anchor, moving), Math.max(view.anchor, moving)] }, SETTLE_MS);
      } else {
        view.anchor = null;
        choose({ pos: move(view.selected ?? 0), ...(view.range ? { span: null } : {}) }, SETTLE_MS);
      }
    } else return;
    event.preventDefault();
    event.stopPropagation();
  };
  view.strip.onkeydown = press;
  const everywhere = (event) => {
    const target = event.composedPath()[0];
    if (target instanceof Element && !target.closest(OWN_KEYS) && !document.querySelector("[role=dialog]")) press(event);
  };
  if (data.keys) document.addEventListener("keydown", everywhere);
  return () => {
    window.removeEventListener("eigenscope:selected", follow);
    window.removeEventListener("eigenscope:hover", hovered);
    document.removeEventListener("keydown", everywhere);
  };
}
