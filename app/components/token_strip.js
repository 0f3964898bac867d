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
  return { strip, told, scale, tokens: [...strip.children], shown: data.identity, selected: null, range: null, anchor: null, sent: 0 };
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
  view.tokens.forEach((token, index) => {
    const selected = index === view.selected;
    token.classList.toggle("selected", selected);
    token.setAttribute("aria-selected", selected);
    token.classList.toggle("ranged", view.range !== null && index >= view.range[0] && index <= view.range[1]);
  });
  tell(view, data, null);
}

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
  view.selected ??= window.eigenscopeSelected?.[data.strip] ?? null;
  paint(view, data);
  reveal(view);

  const choose = (index, wait = 0) => {
    view.selected = index;
    paint(view, data);
    reveal(view);
    clearTimeout(view.timer);
    view.timer = setTimeout(() => {
      view.timer = null;
      view.sent = Date.now();
      setTriggerValue("clicked", { pos: index, sent: view.sent });
    }, wait);
  };
  const at = (event) => {
    const token = event.target.closest(".token");
    return token ? Number(token.dataset.pos) : null;
  };

  const follow = ({ detail }) => {
    // A choice that is on its way to the page must not be undone by the redraw of an earlier one.
    if (detail.strip !== data.strip || view.timer || detail.answered < view.sent) return;
    view.selected = detail.selected;
    paint(view, data);
    reveal(view);
  };
  window.addEventListener("eigenscope:selected", follow);

  view.strip.onmouseover = (event) => tell(view, data, at(event));
  view.strip.onmouseleave = () => tell(view, data, null);
  view.strip.onclick = (event) => {
    const index = at(event);
    if (index === null) return;
    if (event.shiftKey && view.selected !== null) {
      view.anchor ??= view.selected;
      view.range = [Math.min(view.anchor, index), Math.max(view.anchor, index)];
      paint(view, data);
      return;
    }
    view.range = view.anchor = null;
    choose(index === view.selected ? null : index);
  };
  view.strip.onkeydown = (event) => {
    const last = view.tokens.length - 1;
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -10, ArrowDown: 10, Home: -last, End: last }[event.key];
    if (event.key === "Escape") {
      if (view.range) {
        view.range = view.anchor = null;
        paint(view, data);
      } else choose(null);
    } else if (step !== undefined) {
      const index = Math.min(last, Math.max(0, (view.selected ?? 0) + step));
      if (event.shiftKey) {
        const [a, b] = view.range ?? [view.selected ?? 0, view.selected ?? 0];
        view.anchor ??= view.selected ?? 0;
        const moving = Math.min(last, Math.max(0, (view.anchor === a ? b : a) + step));
        view.range = [Math.min(view.anchor, moving), Math.max(view.anchor, moving)];
        paint(view, data);
      } else {
        view.range = view.anchor = null;
        choose(index, SETTLE_MS);
      }
    } else return;
    event.preventDefault();
  };
  return () => window.removeEventListener("eigenscope:selected", follow);
}
