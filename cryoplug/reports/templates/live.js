"use strict";
// A live page reads itself anew every few seconds; what was searched, sorted and chosen stays.
function keep(name, value) {
  try { sessionStorage.setItem(`${location.pathname} ${name}`, JSON.stringify(value)); } catch (error) { /* private window */ }
}

function recall(name) {
  try { return JSON.parse(sessionStorage.getItem(`${location.pathname} ${name}`)); } catch (error) { return null; }
}

function startLive(seconds, busy) {
  const pause = document.querySelector(".pause"), still = document.querySelector(".still");
  const written = Number(still.dataset.written) * 1000;
  pause.checked = Boolean(recall("pause"));
  pause.addEventListener("change", () => keep("pause", pause.checked));
  const top = recall("top");
  if (top) window.scrollTo(0, top);
  window.addEventListener("scroll", () => keep("top", window.scrollY), { passive: true });
  let left = seconds;
  setInterval(() => {
    const age = Math.max(0, Math.round((Date.now() - written) / 1000));
    still.textContent = age < 120 ? `written ${age} s ago` : `written ${Math.round(age / 60)} min ago`;
    if (pause.checked || busy() || document.hidden) return;
    left -= 1;
    if (left <= 0) location.reload();
  }, 1000);
}
