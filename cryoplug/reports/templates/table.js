"use strict";
// A table of many rows: only those that are seen are in the page, so that 20,000 open and filter at once.
const ROW_PX = 32;
const BEYOND = 12;

function makeTable(box, data, chosen) {
  const columns = data.columns, rows = data.rows, texts = data.texts || [];
  const scroll = box.querySelector(".scroll"), body = box.querySelector("tbody"), head = box.querySelector("thead");
  const search = box.querySelector("input[type=search]"), only = box.querySelector(".problems"), count = box.querySelector(".count");
  const shown = (row, place) => (columns[place].kind === "text" ? texts[row[place]] : row[place]);
  let order = rows.map((_, index) => index), view = order, hay = null, sort = null, down = false, selected = -1, drawn = "";
  const folder = data.folder || "", below = box.querySelector(".folder"), whole = box.querySelector(".whole");
  only.parentElement.hidden = !data.bad;
  if (folder) below.textContent = `All are in ${folder}. `;

  const titles = document.createElement("tr");
  columns.forEach((column, place) => {
    const cell = document.createElement("th"), button = document.createElement("button");
    cell.className = classOf(column);
    cell.scope = "col";
    button.type = "button";
    button.textContent = column.label;
    button.title = column.hint || "";
    button.addEventListener("click", () => sortBy(place));
    cell.append(button);
    titles.append(cell);
  });
  head.append(titles);

  function classOf(column) {
    return [column.kind === "number" ? "number" : "", column.narrow ? "" : "narrow-hide", column.name ? "name" : ""].join(" ").trim();
  }

  function sortBy(place, keepDirection) {
    if (!keepDirection) {
      down = sort === place ? !down : false;
      sort = place;
    }
    const collator = new Intl.Collator("en", { numeric: true });
    const keys = rows.map((row) => shown(row, place));
    const sign = down ? -1 : 1;
    const numbers = columns[place].kind === "number";
    order = rows.map((_, index) => index);
    order.sort((a, b) => {
      const left = keys[a], right = keys[b];
      // What has no value stands last, whichever way round.
      if (left === null || right === null) return left === right ? a - b : left === null ? 1 : -1;
      return (sign * (numbers ? left - right : collator.compare(left, right))) || a - b;
    });
    titles.childNodes.forEach((cell, index) => {
      if (index === sort) cell.setAttribute("aria-sort", down ? "descending" : "ascending");
      else cell.removeAttribute("aria-sort");
    });
    filter();
  }

  function filter() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    if (words.length && !hay) {
      hay = rows.map((row) => columns.map((column, place) => (column.kind === "number" ? "" : shown(row, place) || "")).join("\n").toLowerCase());
    }
    const bad = only.checked && data.bad ? new Set(data.bad) : null;
    view = order.filter((index) => (!bad || bad.has(index)) && words.every((word) => hay[index].includes(word)));
    const all = rows.length.toLocaleString("en");
    count.textContent = view.length === rows.length ? `${all} ${rows.length === 1 ? "row" : "rows"}` : `${view.length.toLocaleString("en")} of ${all} rows`;
    scroll.scrollTop = 0;
    draw(true);
    remember();
  }

  function text(value, column) {
    if (value === null || value === undefined || value === "") return column.kind === "number" ? "-" : "";
    if (column.kind !== "number") return value;
    return Number.isInteger(value) ? value.toLocaleString("en") : String(Number(value.toPrecision(column.digits || 4)));
  }

  function space(height) {
    const row = document.createElement("tr"), cell = document.createElement("td");
    row.className = "space";
    row.setAttribute("aria-hidden", "true");
    cell.colSpan = columns.length;
    cell.style.height = `${height}px`;
    row.append(cell);
    return row;
  }

  function draw(anew) {
    const first = Math.max(0, Math.floor(scroll.scrollTop / ROW_PX) - BEYOND);
    const last = Math.min(view.length, Math.ceil((scroll.scrollTop + scroll.clientHeight) / ROW_PX) + BEYOND);
    const now = `${first} ${last} ${selected}`;
    if (!anew && now === drawn) return;
    drawn = now;
    const parts = [];
    if (first) parts.push(space(first * ROW_PX));
    for (let place = first; place < last; place++) parts.push(line(view[place]));
    if (last < view.length) parts.push(space((view.length - last) * ROW_PX));
    if (!view.length) parts.push(nothing());
    body.replaceChildren(...parts);
  }

  function nothing() {
    const row = document.createElement("tr"), cell = document.createElement("td");
    cell.colSpan = columns.length;
    cell.textContent = rows.length ? "Nothing fits. Clear the search, or untick “problems only”." : "Nothing is here yet.";
    row.append(cell);
    return row;
  }

  function line(index) {
    const row = document.createElement("tr");
    row.dataset.row = index;
    row.setAttribute("aria-selected", index === selected);
    columns.forEach((column, place) => {
      const cell = document.createElement("td"), inner = document.createElement("span");
      const whole = text(shown(rows[index], place), column), value = column.name ? whole.slice(folder.length) : whole;
      cell.className = classOf(column);
      inner.className = "cell";
      if (column.name) {
        // What does not fit is left out at the left, where names are alike; the isolated text keeps its own direction.
        const isolated = document.createElement("bdi");
        isolated.textContent = value;
        inner.append(isolated);
      } else inner.textContent = value;
      if (column.tone && column.tone[value]) inner.classList.add(column.tone[value]);
      if (whole.length > 20) cell.title = whole;
      cell.append(inner);
      row.append(cell);
    });
    return row;
  }

  function select(index, bring) {
    selected = index;
    const place = view.indexOf(index);
    if (bring && place >= 0) {
      const head = titles.offsetHeight, top = place * ROW_PX;
      if (top < scroll.scrollTop) scroll.scrollTop = top;
      else if (top + ROW_PX + head > scroll.scrollTop + scroll.clientHeight) scroll.scrollTop = top + ROW_PX + head - scroll.clientHeight;
    }
    draw(true);
    remember();
    if (chosen) chosen(index);
    else spell(rows[index]);
  }

  // A table without a viewer spells out below what its cells cut off.
  function spell(row) {
    const said = columns.map((column, place) => (column.kind === "number" || !(column.name || column.long) ? "" : shown(row, place)));
    whole.textContent = said.filter(Boolean).join(": ");
    whole.hidden = !whole.textContent;
  }

  function step(by) {
    if (!view.length) return;
    const place = view.indexOf(selected);
    select(view[Math.max(0, Math.min(view.length - 1, place < 0 ? 0 : place + by))], true);
  }

  function remember() {
    keep(box.dataset.table, { search: search.value, only: only.checked, sort, down, selected });
  }

  body.addEventListener("click", (event) => {
    const row = event.target.closest("tr[data-row]");
    if (row) select(Number(row.dataset.row), false);
  });
  scroll.addEventListener("keydown", (event) => {
    if (event.target !== scroll) return;
    const page = Math.max(1, Math.floor(scroll.clientHeight / ROW_PX) - 2);
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    if (!(event.key in steps)) return;
    event.preventDefault();
    if (view.indexOf(selected) < 0 && view.length) select(view[event.key === "End" ? view.length - 1 : 0], true);
    else step(steps[event.key]);
  });
  scroll.addEventListener("scroll", () => draw(false), { passive: true });
  search.addEventListener("input", filter);
  only.addEventListener("change", filter);
  window.addEventListener("resize", () => draw(false));

  const before = recall(box.dataset.table);
  if (before) {
    search.value = before.search || "";
    only.checked = Boolean(before.only);
    if (before.sort !== null && columns[before.sort]) {
      sort = before.sort;
      down = before.down;
    }
  }
  if (sort === null) filter();
  else sortBy(sort, true);
  return { select, step, first: () => (before && rows[before.selected] ? before.selected : data.first || 0), rows: rows.length };
}
