"use strict";

function explore(section) {
  const rows = [...section.querySelectorAll(".triplets li")].map((row) => ({
    row,
    number: row.dataset.relation,
    ends: [row.dataset.subject, row.dataset.target],
    score: row.dataset.score === "" ? Infinity : Number(row.dataset.score),
  }));
  const objects = [...section.querySelectorAll("g[data-object]")];
  const edges = [...section.querySelectorAll("g[data-relation]")];

  function light(chosen, ends) {
    const numbers = new Set(chosen.map((x) => x.number));
    section.classList.add("lit");
    for (const { row, number } of rows) row.classList.toggle("on", numbers.has(number));
    for (const edge of edges) edge.classList.toggle("on", numbers.has(edge.dataset.relation));
    for (const mark of objects) mark.classList.toggle("on", ends.has(mark.dataset.object));
  }

  function show(target) {
    const mark = target?.closest?.("[data-relation], [data-object]");
    if (!mark || !section.contains(mark)) {
      section.classList.remove("lit");
      section.querySelectorAll(".on").forEach((x) => x.classList.remove("on"));
      return;
    }
    const shown = rows.filter((x) => !x.row.hidden);
    const { relation, object } = mark.dataset;
    const chosen = shown.filter((x) =>
      relation === undefined ? x.ends.includes(object) : x.number === relation);
    light(chosen, new Set([object, ...chosen.flatMap((x) => x.ends)]));
  }

  function cut(least) {
    for (const x of rows) x.row.hidden = x.score < least;
    const shown = rows.filter((x) => !x.row.hidden);
    const numbers = new Set(shown.map((x) => x.number));
    const tied = new Set(shown.flatMap((x) => x.ends));
    for (const edge of edges) {
      edge.classList.toggle("hidden", !numbers.has(edge.dataset.relation));
    }
    for (const mark of section.querySelectorAll(".web g[data-object]")) {
      mark.classList.toggle("idle", least > 0 && !tied.has(mark.dataset.object));
    }
    section.querySelector(".count").textContent = shown.length;
  }

  function reachable() {
    const seen = new Set();
    for (const mark of section.querySelectorAll(".photo g[data-object]")) {
      const number = mark.dataset.object;
      if (seen.has(number)) continue;
      seen.add(number);
      const texts = section.querySelector(`.photo g[data-object="${number}"] text`);
      mark.setAttribute("tabindex", "0");
      mark.setAttribute("role", "img");
      mark.setAttribute("aria-label", texts?.textContent ?? number);
    }
  }

  section.addEventListener("pointerover", (event) => {
    const inside = event.target.closest("[data-relation], [data-object]");
    show(inside ?? document.activeElement);
  });
  section.addEventListener("pointerleave", () => show(document.activeElement));
  section.addEventListener("focusin", (event) => show(event.target));
  section.addEventListener("focusout", () => show(null));
  section.addEventListener("keydown", (event) => {
    if (event.key === "Escape") document.activeElement.blur();
  });
  const slider = section.querySelector("input");
  slider?.addEventListener("input", () => {
    section.querySelector("output").textContent = Number(slider.value).toFixed(3);
    cut(Number(slider.value));
  });
  reachable();
}

document.querySelectorAll(".graph").forEach(explore);
