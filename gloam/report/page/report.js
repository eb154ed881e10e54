"use strict";
(() => {
  document.documentElement.classList.add("scripted");
  const curves = JSON.parse(document.getElementById("curves").textContent);

  // Values of curves: a slider, or the pointer over the drawing.
  for (const figure of document.querySelectorAll("figure[data-chart]")) {
    const data = curves[figure.dataset.chart];
    if (!data) continue;
    const svg = figure.querySelector("svg");
    const slider = figure.querySelector("input[type=range]");
    const output = figure.querySelector("output");
    const boxes = [...figure.querySelectorAll(".legend input")];
    const [first, last] = data.x;
    const [left, right] = data.box;
    const view = svg.viewBox.baseVal;
    const guide = document.createElementNS("http://www.w3.org/2000/svg", "line");
    guide.setAttribute("class", "guide");
    guide.setAttribute("y1", "0");
    guide.setAttribute("y2", String(view.height * 0.85));
    svg.append(guide);
    const show = () => {
      const at = Number(slider.value);
      const place = Math.round(at - first);
      const x = view.width * (left + (right - left) * (last > first ? (at - first) / (last - first) : 0));
      guide.setAttribute("x1", String(x));
      guide.setAttribute("x2", String(x));
      const parts = data.lines
        .filter((line, number) => !boxes[number] || boxes[number].checked)
        .map(([label, values]) => `${label} ${values[Math.min(place, values.length - 1)].toFixed(1)} %`);
      output.textContent = `${slider.dataset.word} ${at}: ${parts.join(", ") || "no curve is shown"}`;
    };
    slider.addEventListener("input", show);
    svg.addEventListener("pointermove", (event) => {
      const bounds = svg.getBoundingClientRect();
      const share = ((event.clientX - bounds.left) / bounds.width - left) / (right - left);
      slider.value = String(Math.round(first + share * (last - first)));
      show();
    });
    boxes.forEach((box, number) => {
      box.addEventListener("change", () => {
        const line = document.getElementById(`${figure.dataset.chart}-line${number}`);
        if (line) line.style.display = box.checked ? "" : "none";
        show();
      });
    });
    show();
  }

  // Tables: a click on a column's head sorts by it.
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      head.textContent = "";
      head.append(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
        const rows = [...table.tBodies[0].rows];
        rows.sort((one, other) => {
          const [a, b] = [value(one), value(other)];
          const [x, y] = [parseFloat(a), parseFloat(b)];
          const order = Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b) : x - y;
          return down ? -order : order;
        });
        table.tBodies[0].append(...rows);
      });
    });
  }

  // Queries: filter, sort, and go through them with the keyboard.
  for (const browser of document.querySelectorAll(".browser")) {
    const list = browser.querySelector(".queries");
    const items = [...list.children];
    const chosen = (name) => browser.querySelector(`[data-control=${name}]`).value;
    const count = browser.querySelector(".count");
    const apply = () => {
      let shown = 0;
      for (const item of items) {
        const data = item.dataset;
        const fits =
          (chosen("kind") === "all" || data.kinds.split(" ").includes(chosen("kind"))) &&
          (chosen("cam") === "all" || data.cam === chosen("cam")) &&
          (chosen("modality") === "all" || data.modality === chosen("modality")) &&
          (chosen("error") === "all" || data.error === chosen("error"));
        item.hidden = !fits;
        shown += fits ? 1 : 0;
      }
      const [key, direction] = chosen("sort").split(" ");
      const sign = direction === "down" ? -1 : 1;
      items.sort((one, other) => sign * (Number(one.dataset[key]) - Number(other.dataset[key])));
      list.append(...items);
      count.textContent = `${shown} of ${items.length} queries`;
    };
    browser.querySelectorAll("[data-control]").forEach((control) => control.addEventListener("change", apply));
    browser.querySelector("[data-reset]").addEventListener("click", () => {
      browser.querySelectorAll("[data-control]").forEach((control) => { control.selectedIndex = 0; });
      apply();
    });
    list.addEventListener("keydown", (event) => {
      const step = { j: 1, ArrowDown: 1, k: -1, ArrowUp: -1 }[event.key];
      const visible = items.filter((item) => !item.hidden);
      const here = visible.indexOf(event.target.closest(".query"));
      if (event.ctrlKey || event.altKey || event.metaKey || here < 0) return;
      const next = event.key === "Home" ? 0 : event.key === "End" ? visible.length - 1 : step ? here + step : -1;
      if (visible[next]) {
        event.preventDefault();
        visible[next].focus();
        visible[next].scrollIntoView({ block: "nearest" });
      }
    });
    apply();
  }
})();
