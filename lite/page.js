// What JupyterLite's pages do not do by themselves: links to the book's site, figures in the dark, and word of
// a reader's own copy of an earlier edition. A chapter's name holds its edition, so a changed chapter is another
// file; the copy that a reader changed stays in the browser's storage under its own name.
(() => {
  "use strict";

  // Links in the copies begin with this address, for nobody knows where the site will be.
  const MARK = "https://site.invalid/";
  const LITE = new URL("../", location.href);
  const SITE = new URL("../", LITE);
  const CHAPTER = /^(chapters\/.+?)(?:-[0-9a-f]{8})?\.ipynb$/;

  function lead(event) {
    const link = event.target.closest?.(`a[href^="${MARK}"]`);
    if (link) link.href = new URL(link.getAttribute("href").slice(MARK.length), SITE).href;
  }
  for (const kind of ["pointerover", "focusin", "click", "auxclick"]) {
    document.addEventListener(kind, lead, true);
  }

  // Figures are drawn on white: in the dark their lightness is turned round, their hues stay.
  const style = document.createElement("style");
  style.textContent = `
    body[data-jp-theme-light="false"] .jp-RenderedImage img { filter: invert(0.9) hue-rotate(180deg); }
    .edition { position: fixed; inset: auto 0 0 0; z-index: 10000; padding: 0.5rem 1rem; display: flex; gap: 1rem;
      background: #fff8d6; color: #222; font: 14px sans-serif; border-top: 1px solid #a80; }
    .edition a { color: #00477a; text-decoration: underline; }
    .edition button { margin-left: auto; font: inherit; }
    @media print { .edition { display: none; } }`;
  document.head.append(style);

  // The names of files that the reader has saved here, in the storage of this JupyterLite.
  async function saved() {
    const found = [];
    for (const { name } of (await indexedDB.databases?.()) ?? []) {
      if (name !== "JupyterLite Storage" && name !== `JupyterLite Storage - ${LITE.pathname}`) continue;
      const database = await asked(indexedDB.open(name));
      if (database.objectStoreNames.contains("files")) {
        found.push(...(await asked(database.transaction("files").objectStore("files").getAllKeys())));
      }
      database.close();
    }
    return found;
  }

  function asked(request) {
    return new Promise((resolve, reject) => {
      request.onsuccess = () => resolve(request.result);
      request.onerror = () => reject(request.error);
    });
  }

  function open(path) {
    const url = new URL(location.href);
    url.searchParams.set("path", path);
    return url.href;
  }

  function say(text, link, path) {
    const bar = document.createElement("div");
    bar.className = "edition";
    bar.setAttribute("role", "status");
    const to = Object.assign(document.createElement("a"), { href: open(path), textContent: link });
    const close = Object.assign(document.createElement("button"), { textContent: "Close" });
    close.addEventListener("click", () => bar.remove());
    bar.append(text, to, close);
    document.body.append(bar);
  }

  async function editions() {
    const path = new URLSearchParams(location.search).get("path") ?? "";
    const name = CHAPTER.exec(path)?.[1];
    if (!name) return;
    const current = (await (await fetch(new URL("editions.json", LITE))).json())[name];
    const own = (await saved()).filter((key) => CHAPTER.exec(key)?.[1] === name);
    if (!current) return;
    if (path === current) {
      const earlier = own.filter((key) => key !== current);
      if (earlier.length) say("You changed an earlier edition of this chapter.", "Open your copy", earlier.at(-1));
    } else if (own.includes(path)) {
      say("This is your copy of an earlier edition.", "Open the chapter as it is now", current);
    } else {
      location.replace(open(current));
    }
  }
  editions();
})();
