// Sections of plain text; everything shown goes through textContent.

function row(cells, tag, labelled) {
  const line = document.createElement("tr");
  cells.forEach((text, index) => {
    const cell = document.createElement(tag);
    cell.textContent = text;
    if (tag === "td") cell.className = labelled && index === 0 ? "label" : "value";
    line.append(cell);
  });
  return line;
}

export default function ({ data, parentElement }) {
  const root = parentElement.querySelector(".root");
  root.replaceChildren(
    ...data.sections.map(({ title, head, rows, gap }) => {
      const section = document.createElement("section");
      if (title) {
        const heading = document.createElement("h3");
        heading.textContent = title;
        section.append(heading);
      }
      if (rows.length) {
        const alone = rows[0].length === 1;
        const table = document.createElement("table");
        if (head.length) table.append(row(head, "th", false));
        const labelled = !alone && (!head.length || head[0] === "");
        rows.forEach((cells) => table.append(row(cells, "td", labelled)));
        section.append(table);
      }
      if (gap) {
        const reason = document.createElement("p");
        reason.className = "gap";
        reason.textContent = gap;
        section.append(reason);
      }
      return section;
    }),
  );
}
