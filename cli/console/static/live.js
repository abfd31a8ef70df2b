// Looks every three seconds how far a withdrawal is, and shows it in place. Without it the page is as good as
// when it was loaded.
(function () {
  "use strict";
  const part = document.querySelector("[data-live]");
  const told = document.getElementById("told");
  if (!part) { return; }
  function mark(name) { const found = part.querySelector("[data-over]"); return found ? found.dataset[name] : ""; }
  let state = mark("state");
  let shown = "";
  async function look() {
    try {
      const answer = await fetch(part.dataset.live, { credentials: "same-origin", redirect: "manual" });
      if (answer.ok) {
        const text = await answer.text();
        if (text !== shown) { part.innerHTML = text; shown = text; }
        if (mark("state") !== state) {
          state = mark("state");
          const step = part.querySelector("[aria-current=step]");
          if (told) { told.textContent = "Now: " + (step ? step.textContent.trim() : state); }
        }
        if (mark("over") === "yes") { window.location.reload(); return; }
      } else {
        // Logged out meanwhile: the page itself leads to the form.
        window.location.reload();
        return;
      }
    } catch (error) { /* The console is being restarted; ask again. */ }
    window.setTimeout(look, 3000);
  }
  window.setTimeout(look, 3000);
})();
