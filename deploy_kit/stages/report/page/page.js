"use strict";
// Tooltips of marks, by pointer and by arrow keys; tables that sort by a heading. The page reads whole without it.
(() => {
  const tip = Object.assign(document.createElement("div"), { id: "tip", hidden: true });
  tip.setAttribute("role", "status");
  document.body.append(tip);
  let at = null;

  function show(mark) {
    if (at) at.classList.remove("at");
    tip.hidden = !mark;
    if (!mark) return; // where the arrow keys are is kept: a scroll hides the tip alone
    at = mark;
    mark.classList.add("at");
    tip.textContent = mark.getAttribute("aria-label");
    const box = mark.getBoundingClientRect(), width = tip.offsetWidth, height = tip.offsetHeight;
    const left = Math.min(Math.max(box.left + box.width / 2 - width / 2, 8), document.documentElement.clientWidth - width - 8);
    const above = box.top - height - 8;
    tip.style.left = `${left}px`;
    tip.style.top = `${above > 8 ? above : box.bottom + 8}px`;
  }

  const markOf = (event) => (event.target.closest ? event.target.closest("svg .mark") : null);
  document.addEventListener("pointerover", (event) => show(markOf(event)));
  document.addEventListener("pointerdown", (event) => show(markOf(event)));
  document.addEventListener("scroll", () => show(null), { passive: true });
  document.addEventListener("focusout", () => show(null));
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") return show(null);
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step || !event.target.matches("svg")) return;
    event.preventDefault();
    const marks = [...event.target.querySelectorAll(".mark")];
    const here = marks.indexOf(at), next = here < 0 ? (step > 0 ? 0 : -1) : here + step;
    if (marks.length) show(marks.at(next % marks.length));
  });

  const number = (text) => {
    const found = text.replace("−", "-").replaceAll(",", "").match(/^[^\d+-]*([-+]?\d+(\.\d+)?(e[-+]?\d+)?)/i);
    return found ? Number(found[1]) : NaN;
  };
  for (const button of document.querySelectorAll("thead button")) {
    button.addEventListener("click", () => {
      const heading = button.parentElement, table = button.closest("table"), body = table.tBodies[0];
      const place = heading.cellIndex, down = heading.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", down > 0 ? "ascending" : "descending");
      const keyed = [...body.rows].map((row) => [row, row.cells[place].textContent.trim()]);
      keyed.sort(([, a], [, b]) => {
        const [x, y] = [number(a), number(b)];
        if (Number.isNaN(x) !== Number.isNaN(y)) return Number.isNaN(x) ? 1 : -1; // what is no number stands last
        return down * (Number.isNaN(x) ? a.localeCompare(b) : x - y);
      });
      body.append(...keyed.map(([row]) => row));
    });
  }
})();
