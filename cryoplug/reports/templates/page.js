"use strict";
{
  const data = JSON.parse(document.getElementById("data").textContent);
  const tables = {};
  let viewer = null;
  const box = document.querySelector(".viewer");
  if (box && data.table) viewer = makeViewer(box, data, () => tables.table);
  for (const place of document.querySelectorAll("[data-table]")) {
    const name = place.dataset.table;
    tables[name] = makeTable(place, data[name], name === "table" && viewer ? (index) => viewer.show(index) : null);
  }
  if (viewer && tables.table.rows) tables.table.select(tables.table.first(), false);
  const tick = document.querySelector(".pause");
  if (tick) startLive(data.live, () => Boolean(viewer && viewer.held()) || document.activeElement instanceof HTMLInputElement && document.activeElement.type === "search");
}
