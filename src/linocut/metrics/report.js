// Sorts tables by the heading that is chosen, and shows pictures large. The page can be read without.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, place) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down === 1 ? "ascending" : "descending");
      const key = (row) => {
        const cell = row.cells[place];
        if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
        return cell.tagName === "TH" || cell.classList.contains("text") ? cell.textContent : NaN;
      };
      const order = (a, b) => {
        const one = key(a), other = key(b);
        if (typeof one === "string") return down * one.localeCompare(other, undefined, { numeric: true });
        if (Number.isNaN(one) || Number.isNaN(other)) return Number.isNaN(one) - Number.isNaN(other);
        return down * (one - other);
      };
      table.tBodies[0].append(...[...table.tBodies[0].rows].sort(order));
    });
  });
}
const large = document.getElementById("large");
for (const button of document.querySelectorAll("button.zoom")) {
  button.addEventListener("click", () => {
    const picture = button.querySelector("img"), shown = large.querySelector("img");
    shown.src = picture.src;
    shown.alt = picture.alt;
    large.showModal();
  });
}
large.addEventListener("click", (event) => { if (event.target === large) large.close(); });
