"use strict";
const make = (tag, properties, parent) => parent.appendChild(Object.assign(document.createElement(tag), properties));

// a click on a heading sorts the rows by raw values, or by text where a cell has no raw value
for (const table of document.querySelectorAll("table.sorts")) {
  table.querySelectorAll("thead th").forEach((th, column) => {
    const text = th.textContent;
    th.textContent = "";
    make("button", { type: "button", textContent: text }, th).addEventListener("click", () => {
      const down = th.getAttribute("aria-sort") === "ascending";
      for (const other of table.querySelectorAll("[aria-sort]")) other.removeAttribute("aria-sort");
      th.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = (row) => row.cells[column].dataset.order ?? row.cells[column].textContent.trim().replaceAll(",", "");
      const empty = (value) => value === "" || value === "-" || value === "nan";
      const rows = [...table.tBodies[0].rows].sort((a, b) => {
        const [x, y] = [key(a), key(b)];
        if (empty(x) || empty(y)) return empty(x) - empty(y); // empty cells come last in both directions
        const order = isNaN(x) || isNaN(y) ? x.localeCompare(y, undefined, { numeric: true }) : x - y;
        return down ? -order : order;
      });
      table.tBodies[0].append(...rows);
    });
  });
}

for (const button of document.querySelectorAll("[data-copy]")) {
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(button.dataset.copy);
      button.classList.add("done");
      setTimeout(() => button.classList.remove("done"), 1500);
    } catch { // if the browser forbids copying, select the text
      getSelection().selectAllChildren(button);
    }
  });
}

// a click on a cell of the confusion matrix shows the cell's images, cut from the sheet of mistakes
const sheet = document.getElementById("sheet"), dialog = document.getElementById("images");
for (const button of sheet ? document.querySelectorAll("td.cell button") : []) {
  button.addEventListener("click", () => {
    const { row, column, size, told } = button.dataset;
    const canvas = dialog.querySelector("canvas");
    const [w, h] = [sheet.naturalWidth / size, sheet.naturalHeight / size];
    Object.assign(canvas, { width: w, height: h });
    canvas.setAttribute("aria-label", told);
    canvas.getContext("2d").drawImage(sheet, column * w, row * h, w, h, 0, 0, w, h);
    dialog.querySelector("p").textContent = told;
    dialog.showModal();
  });
}

// a link to a place inside a closed part opens the part
const unfold = () => {
  const part = document.getElementById(location.hash.slice(1))?.closest("details");
  if (part) part.open = true;
};
addEventListener("hashchange", unfold);
unfold();
