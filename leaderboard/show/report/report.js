"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const data = JSON.parse(document.getElementById("data").textContent);

  // Filtering: whole tables by task, protocol and corpus, rows and details by upstream.
  const field = (name) => document.getElementById(`filter-${name}`);
  const filter = () => {
    const words = field("upstream").value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    let total = 0;
    for (const section of all("main > section")) {
      const right = ["task", "protocol", "corpus"].every(
        (name) => !field(name).value || field(name).value === section.dataset[name],
      );
      for (const entry of all("[data-name]", section)) {
        entry.hidden = !words.every((word) => entry.dataset.name.includes(word));
      }
      const rows = all("tbody tr", section);
      const left = right ? rows.filter((row) => !row.hidden).length : 0;
      if (!section.matches(".summary")) { // whose rows are those of the tables below
        total += rows.length;
        shown += left;
      }
      section.hidden = left === 0;
    }
    document.getElementById("shown").textContent = `${shown} of ${total} rows`;
  };

  // Where a score comes from. Only text is set, never markup.
  const dialog = document.getElementById("origin");
  const explain = (run) => {
    const places = data.runs[run];
    dialog.querySelector("dl").replaceChildren(
      ...places.map((place, position) => {
        const part = document.createElement(position % 2 ? "dd" : "dt");
        part.textContent = data.texts[place];
        return part;
      }),
    );
    dialog.showModal();
    dialog.scrollTop = 0;
  };

  // One recording at a time.
  const player = new Audio();
  let playing = null;
  const stop = () => {
    player.pause();
    if (playing) {
      playing.setAttribute("aria-pressed", "false");
      playing.textContent = "Play";
    }
    playing = null;
  };
  const play = (button) => {
    const again = playing === button;
    stop();
    if (again) return;
    player.src = data.audio[button.dataset.audio];
    playing = button;
    button.setAttribute("aria-pressed", "true");
    button.textContent = "Stop";
    player.play().catch(() => {
      if (playing !== button) return;
      stop();
      button.disabled = true;
      button.textContent = "Cannot be played here";
    });
  };
  player.addEventListener("ended", stop);

  // A link to details opens them.
  const open = () => {
    const target = location.hash && document.getElementById(location.hash.slice(1));
    if (target && target.localName === "details") {
      target.open = true;
      target.scrollIntoView();
    }
  };

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (event.target === dialog) dialog.close();
    if (event.target.closest('a[href^="#"]')) setTimeout(open);
    if (!button) return;
    if (button.dataset.run) explain(button.dataset.run);
    if (button.dataset.audio) play(button);
  });
  document.querySelector(".filters").addEventListener("input", filter);
  window.addEventListener("hashchange", open);
  filter();
  open();
})();
