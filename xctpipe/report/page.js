"use strict";
(() => {
  const opacity = document.getElementById("opacity");
  if (opacity) {
    opacity.addEventListener("input", () =>
      document.documentElement.style.setProperty("--labels", opacity.value / 100));
  }

  const keyOf = (cell) => (cell ? (cell.dataset.key ?? cell.textContent).trim() : "");
  const compare = (a, b) => {
    if (a === "" || b === "") return (a === "") - (b === "");
    const x = Number(a), y = Number(b);
    return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b, undefined, { numeric: true }) : x - y;
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        heads.forEach((each) => each.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const rows = [...table.tBodies[0].rows];
        rows.sort((a, b) => {
          const left = keyOf(a.cells[column]), right = keyOf(b.cells[column]);
          const order = compare(left, right);
          // what is not known stays last either way
          return down && left !== "" && right !== "" ? -order : order;
        });
        table.tBodies[0].append(...rows);
      });
    });
  }

  const filter = document.getElementById("filter");
  if (filter) {
    const count = document.getElementById("count");
    filter.addEventListener("input", () => {
      const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const row of document.querySelectorAll(".filtered tbody tr")) {
        const text = row.textContent.toLowerCase();
        const cells = [...row.cells].map((cell) => cell.textContent.toLowerCase());
        // a whole number is a cell of its own, so that 1 does not find 10
        row.hidden = !words.every((word) => (/^\d+$/.test(word) ? cells.includes(word) : text.includes(word)));
        shown += !row.hidden;
      }
      count.textContent = words.length ? `${shown} rows` : "";
    });
  }

  const data = document.getElementById("mesh-data");
  const mesh = document.getElementById("mesh");
  const hasWebGL = () => {
    try {
      const context = document.createElement("canvas").getContext("webgl");
      context?.getExtension("WEBGL_lose_context")?.loseContext();
      return Boolean(context);
    } catch {
      return false;
    }
  };
  if (data && mesh && window.Plotly && hasWebGL()) {
    const still = document.getElementById("mesh-still");
    const figure = JSON.parse(data.textContent);
    const draw = () => {
      mesh.hidden = false;
      window.Plotly.newPlot(mesh, figure.data, figure.layout, { responsive: true, displaylogo: false, scrollZoom: false })
        .then(() => { if (still) still.style.display = "none"; mesh.dataset.drawn = "yes"; })
        .catch(() => { mesh.hidden = true; });
    };
    // drawn when it comes near the view: a phone need not turn triangles that nobody looks at
    new IntersectionObserver((seen, watcher) => {
      if (seen.some((each) => each.isIntersecting)) { watcher.disconnect(); draw(); }
    }, { rootMargin: "400px" }).observe(still ?? mesh.parentElement);
  }
})();
