// Draws the figures of a report: those in sight at once, the others when they come into sight, all before printing.
"use strict";
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const config = { displaylogo: false, responsive: true, toImageButtonOptions: { format: "svg" } };
  const page = Number(document.documentElement.dataset.width) || 0; // pixels; 0 on a screen
  const drawn = new Map();

  const draw = (box) => {
    if (!drawn.has(box)) {
      const { data, layout } = figures[Number(box.dataset.figure)];
      const size = page ? { width: page, autosize: false } : { autosize: true };
      drawn.set(box, Plotly.newPlot(box, data, { ...layout, ...size }, page ? { displayModeBar: false } : config));
    }
    return drawn.get(box);
  };

  // A canvas of WebGL is empty on paper: a picture stands in for it.
  const flatten = async (box) => {
    if (!box.querySelector("canvas")) return;
    const image = new Image();
    image.src = await Plotly.toImage(box, { format: "png", width: page, height: box.clientHeight, scale: 3 });
    await image.decode();
    Plotly.purge(box);
    box.replaceChildren(image);
  };

  const boxes = [...document.querySelectorAll(".plot")];
  if (page) {
    const all = boxes.reduce((before, box) => before.then(() => draw(box)).then(() => flatten(box)), Promise.resolve());
    const tell = (what) => { document.documentElement.dataset.drawn = what; };
    all.then(() => tell("all"), (problem) => tell(`a figure failed: ${problem}`));
    return;
  }
  const near = new IntersectionObserver((seen) => {
    for (const { isIntersecting, target } of seen) {
      if (!isIntersecting) continue;
      near.unobserve(target);
      draw(target);
    }
  }, { rootMargin: "600px" });
  boxes.forEach((box) => near.observe(box));

  const paper = 680; // pixels between the margins of A4
  window.addEventListener("beforeprint", () => {
    document.querySelectorAll("details").forEach((one) => { one.dataset.was = one.open; one.open = true; });
    boxes.forEach((box) => { draw(box); Plotly.relayout(box, { width: paper, autosize: false }); });
  });
  window.addEventListener("afterprint", () => {
    document.querySelectorAll("details").forEach((one) => { one.open = one.dataset.was === "true"; });
    boxes.forEach((box) => Plotly.relayout(box, { width: null, autosize: true }));
  });
})();
