// Previews of what links lead to, and the filter of the ledger. Without scripts the pages say the same.
(() => {
  "use strict";

  function make(tag, settings = {}, ...children) {
    const element = Object.assign(document.createElement(tag), settings);
    element.append(...children);
    return element;
  }

  // ----------------------------------------------------------------------------------------------
  // Previews: on hover and on focus; Escape closes; the pointer may move into them.

  function previews() {
    const store = document.querySelector("template.previews");
    if (!store) return;
    const texts = new Map([...store.content.children].map((e) => [e.dataset.for, e]));
    const box = make("div", { id: "preview", className: "preview", role: "tooltip", hidden: true });
    document.body.append(box);
    let link = null;
    let timer = 0;

    const later = (action, wait) => {
      clearTimeout(timer);
      timer = setTimeout(action, wait);
    };

    function close() {
      clearTimeout(timer);
      link?.removeAttribute("aria-describedby");
      link = null;
      box.hidden = true;
    }

    async function open(target) {
      if (target === link) return;
      close();
      link = target;
      box.replaceChildren(texts.get(target.getAttribute("href")).cloneNode(true));
      box.hidden = false;
      target.setAttribute("aria-describedby", box.id);
      place();
      await window.MathJax?.typesetPromise?.([box]);
      if (link === target) place();
    }

    function place() {
      const at = link.getBoundingClientRect();
      const { offsetWidth: width, offsetHeight: height } = box;
      const left = Math.max(8, Math.min(at.left, document.documentElement.clientWidth - width - 8));
      const below = at.bottom + height + 8 < window.innerHeight || at.top < height + 8;
      box.style.left = `${left + window.scrollX}px`;
      box.style.top = `${(below ? at.bottom + 4 : at.top - height - 4) + window.scrollY}px`;
    }

    for (const target of document.querySelectorAll("article a[href]")) {
      if (!texts.has(target.getAttribute("href")) || target.closest(".headerlink")) continue;
      target.addEventListener("pointerenter", (event) => {
        if (event.pointerType === "mouse") later(() => open(target), 200);
      });
      target.addEventListener("pointerleave", () => later(close, 200));
      target.addEventListener("focus", () => {
        if (target.matches(":focus-visible")) open(target);
      });
      target.addEventListener("blur", close);
    }
    box.addEventListener("pointerenter", () => clearTimeout(timer));
    box.addEventListener("pointerleave", () => later(close, 200));
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape") close();
    });
  }

  // ----------------------------------------------------------------------------------------------
  // The ledger: show the claims of one chapter, or the verdicts with one word.

  function ledger() {
    const claims = [...document.querySelectorAll("article .claim")];
    if (!claims.length) return;
    const chapters = [...new Set(claims.map((claim) => claim.closest("section")))];
    const unwritten = [...chapters[0].parentElement.children].filter(
      (e) => e.matches("section") && !chapters.includes(e),
    );
    const name = (section) => section.querySelector("h2").firstChild.textContent.trim();
    const rows = claims.flatMap((claim) => [...claim.querySelectorAll(":scope > ul > li")]);
    const word = (row) => row.querySelector(".verdict").textContent;
    const words = ["holds", "fails", "depends", "undecided"].filter((w) => rows.some((r) => word(r) === w));

    function choice(label, options) {
      const select = make("select", {}, make("option", { value: "", textContent: "all" }));
      select.append(...options.map((text) => make("option", { value: text, textContent: text })));
      return [select, make("label", {}, `${label} `, select)];
    }

    const [chapter, chapterLabel] = choice("Chapter", chapters.map(name));
    const [verdict, verdictLabel] = choice("Verdict", words);
    const count = make("output");
    const form = make("form", { className: "ledger-filter" }, chapterLabel, verdictLabel, count);
    form.setAttribute("aria-label", "Filter the ledger");
    form.addEventListener("submit", (event) => event.preventDefault());
    chapters[0].before(form);

    function show() {
      for (const row of rows) row.hidden = verdict.value !== "" && word(row) !== verdict.value;
      for (const claim of claims) claim.hidden = !claim.querySelector(":scope > ul > li:not([hidden])");
      for (const section of chapters) {
        const other = chapter.value !== "" && name(section) !== chapter.value;
        section.hidden = other || !section.querySelector(".claim:not([hidden])");
      }
      for (const section of unwritten) section.hidden = chapter.value !== "" || verdict.value !== "";
      const shown = rows.filter((row) => !row.closest("[hidden]")).length;
      count.textContent = `${shown} of ${rows.length} verdicts`;
    }

    // A link to a verdict that the filter hides shows all again.
    function jump() {
      const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
      if (!target?.closest("[hidden]")) return;
      chapter.value = verdict.value = "";
      show();
      target.scrollIntoView();
    }

    form.addEventListener("change", show);
    window.addEventListener("hashchange", jump);
    show();
  }

  // A JupyterLite needs a server: a site that was opened from a folder has no button for it.
  function lite() {
    if (location.protocol === "file:") document.querySelector(".btn-launch-lite")?.remove();
  }

  // Search in a folder: browsers let no page read another file, so the excerpts come from a script with all texts.
  function searchInFolder(here) {
    if (location.protocol !== "file:" || !document.getElementById("search-results")) return;
    const texts = new Promise((resolve) => {
      const script = make("script", { src: new URL("excerpts.js", here).href });
      script.addEventListener("load", () => resolve(window.bookTexts));
      script.addEventListener("error", () => resolve({}));
      document.head.append(script);
    });
    const root = new URL(document.documentElement.dataset.content_root ?? "./", location.href).href;
    window.fetch = async (address) => {
      const name = decodeURI(new URL(address, location.href).href.slice(root.length));
      return new Response(`<div role="main">${(await texts)[name] ?? ""}</div>`);
    };
  }
  searchInFolder(document.currentScript.src);

  document.addEventListener("DOMContentLoaded", () => {
    lite();
    previews();
    ledger();
  });
})();
