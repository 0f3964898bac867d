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

function follow(line, parts, send) {
  if (!parts || !Object.keys(parts).length) return line;
  line.className = "goes";
  line.tabIndex = 0;
  line.setAttribute("role", "button");
  line.onclick = () => send({ ...parts, at: Date.now() });
  line.onkeydown = (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    line.onclick();
  };
  return line;
}

export default function ({ data, parentElement, setTriggerValue }) {
  const root = parentElement.querySelector(".root");
  root.replaceChildren(
    ...data.sections.map(({ title, head, rows, gap, go }) => {
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
        const send = (parts) => setTriggerValue("clicked", parts);
        rows.forEach((cells, index) => table.append(follow(row(cells, "td", labelled), go[index], send)));
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
