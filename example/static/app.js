// The page works without this script. With it, times read in the reader's own
// zone, the time left counts down, and a session that ends says so at once.
"use strict";

for (const el of document.querySelectorAll("time[datetime]")) {
  el.textContent = new Date(el.dateTime).toLocaleString([], { dateStyle: "medium", timeStyle: "medium" });
}

// The notice in the URL has been shown; a reload should not show it again.
if (location.search) history.replaceState(null, "", location.pathname);

if ("signedIn" in document.body.dataset) watchSession();

function watchSession() {
  const askEvery = 10_000; // milliseconds
  const warnAt = 60; // seconds
  const left = document.getElementById("left");
  const soon = document.getElementById("soon");
  let endsAt = 0; // by performance.now(): the browser's clock may be set wrong
  let askedAt = 0;
  let asking = false;

  // Asking does not extend the session.
  async function ask() {
    if (asking) return;
    asking = true;
    askedAt = performance.now();
    try {
      const answer = await fetch("/api/session", { headers: { Accept: "application/json" } });
      if (answer.status === 401) {
        location.replace("/"); // which says why
        return;
      }
      if (answer.ok) endsAt = performance.now() + (await answer.json()).seconds_left * 1000;
    } catch {
      // The server does not answer. The countdown goes on, and the next one may.
    } finally {
      asking = false;
    }
  }

  function show() {
    const now = performance.now();
    const seconds = Math.max(0, Math.round((endsAt - now) / 1000));
    if (endsAt) {
      left.querySelector("strong").textContent = clock(seconds);
      left.hidden = false;
      const warning = seconds <= warnAt ? "This session ends in less than a minute." : "";
      // Screen readers read it again whenever it is set.
      if (soon.textContent !== warning) soon.textContent = warning;
    }
    // The server rounds down, so at zero there may be a moment left: ask again.
    if (now - askedAt >= (endsAt && seconds === 0 ? 1000 : askEvery)) ask();
  }

  ask().then(show);
  setInterval(show, 1000);
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) ask().then(show);
  });
}

function clock(seconds) {
  const two = (n) => String(n).padStart(2, "0");
  const h = Math.floor(seconds / 3600), m = Math.floor(seconds / 60) % 60, s = seconds % 60;
  return h ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`;
}
