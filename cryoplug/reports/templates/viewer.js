"use strict";
// One picture holds three panels side by side: raw, denoised, removed. The divider shows the first beside the second.
function makeDivider(box) {
  const canvas = box.querySelector("canvas"), handle = box.querySelector(".handle"), message = box.querySelector(".message");
  const left = box.querySelector(".tag.left"), right = box.querySelector(".tag.right");
  const ink = canvas.getContext("2d");
  let image = null, at = 0.5, removed = false, asked = 0;

  function draw() {
    const part = removed ? 0 : at;
    handle.hidden = removed || !image;
    handle.style.left = `${100 * at}%`;
    left.hidden = !image || removed || at < 0.12;
    right.hidden = !image || (!removed && at > 0.88);
    left.textContent = "raw, low-passed";
    right.textContent = removed ? "removed" : "denoised";
    box.setAttribute("aria-valuenow", Math.round(100 * at));
    box.setAttribute("aria-valuetext", removed ? "what was removed" : `raw ${Math.round(100 * at)} %, denoised ${Math.round(100 * (1 - at))} %`);
    if (!image) return;
    const gap = Number(box.dataset.gap), strip = Number(box.dataset.strip);
    const width = (image.naturalWidth - 2 * gap) / 3, height = image.naturalHeight - strip;
    if (canvas.width !== width || canvas.height !== height) {
      canvas.width = width;
      canvas.height = height;
    }
    const cut = Math.round(part * width), from = removed ? 2 * (width + gap) : width + gap;
    if (cut) ink.drawImage(image, 0, 0, cut, height, 0, 0, cut, height);
    if (cut < width) ink.drawImage(image, from + cut, 0, width - cut, height, cut, 0, width - cut, height);
  }

  function show(address, none) {
    const mine = ++asked;
    if (!address) {
      image = null;
      ink.clearRect(0, 0, canvas.width, canvas.height);
      message.textContent = none;
      message.hidden = false;
      draw();
      return;
    }
    const next = new Image();
    next.onload = () => {
      if (mine !== asked) return;
      image = next;
      message.hidden = true;
      draw();
    };
    next.onerror = () => {
      if (mine === asked) show("", "The picture is not where it was. Open this page from the folder that holds the pictures.");
    };
    next.src = address;
  }

  function move(to) {
    at = Math.max(0, Math.min(1, to));
    draw();
  }

  function toPointer(event) {
    const place = box.getBoundingClientRect();
    move((event.clientX - place.left) / place.width);
  }
  let held = false;
  box.addEventListener("pointerdown", (event) => {
    if (event.button || removed) return;
    held = true;
    box.setPointerCapture(event.pointerId);
    toPointer(event);
  });
  box.addEventListener("pointermove", (event) => { if (held) toPointer(event); });
  for (const end of ["pointerup", "pointercancel", "lostpointercapture"]) box.addEventListener(end, () => { held = false; });
  box.addEventListener("keydown", (event) => {
    const far = event.shiftKey ? 0.1 : 0.02;
    const places = { ArrowLeft: at - far, ArrowDown: at - far, ArrowRight: at + far, ArrowUp: at + far, PageDown: at - 0.1, PageUp: at + 0.1, Home: 0, End: 1 };
    if (!(event.key in places)) return;
    event.preventDefault();
    move(places[event.key]);
  });
  draw();
  return { show, setRemoved(value) { removed = value; draw(); }, held: () => held };
}

// The picture, the facts and the spectrum of the row that is chosen in the table.
function makeViewer(box, data, table) {
  const divider = makeDivider(box.querySelector(".divider"));
  const name = box.querySelector(".shown-name"), facts = box.querySelector(".shown-facts"), none = box.querySelector(".no-spectrum");
  const byRow = new Map(data.featured.map((row, place) => [row, place]));
  const modes = [...box.querySelectorAll("[data-mode]")];
  for (const button of modes) {
    button.addEventListener("click", () => {
      for (const other of modes) other.setAttribute("aria-pressed", other === button);
      divider.setRemoved(button.dataset.mode === "removed");
    });
  }
  box.querySelector(".before").addEventListener("click", () => table().step(-1));
  box.querySelector(".after").addEventListener("click", () => table().step(1));

  function show(index) {
    const row = data.table.rows[index];
    if (!row) return;
    const place = byRow.get(index);
    const address = place === undefined ? data.pictures[index] : data.featuredPictures[place];
    divider.show(address && (address.startsWith("data:") ? address : data.base + address), data.noPicture);
    facts.replaceChildren();
    data.table.columns.forEach((column, number) => {
      let value = row[number];
      if (column.kind === "text") value = data.table.texts[value];
      if (column.name) name.textContent = value;
      else if (value !== null && value !== "") {
        const pair = document.createElement("div"), term = document.createElement("dt"), said = document.createElement("dd");
        if (column.kind === "text" && value.length > 20) pair.className = "long";
        term.textContent = column.label;
        said.textContent = column.kind === "number" ? String(Number(value.toPrecision(4))) : value;
        pair.append(term, said);
        facts.append(pair);
      }
    });
    box.querySelectorAll("[data-featured]").forEach((part) => { part.hidden = Number(part.dataset.featured) !== place; });
    none.hidden = place !== undefined || !data.featured.length;
  }
  return { show, held: divider.held };
}
