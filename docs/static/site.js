"use strict";

document.addEventListener("DOMContentLoaded", () => {
  const each = (selector, change) => document.querySelectorAll(selector).forEach(change);
  // Notebooks run in the page only where a web server serves it.
  if (location.protocol === "file:") each(".run", (button) => button.remove());
  // Furo's parts of a page have no names, its search no heading, and what scrolls can't be reached by the keyboard.
  each(".sidebar-drawer", (part) => part.setAttribute("aria-label", "Pages"));
  each(".toc-drawer", (part) => part.setAttribute("aria-label", "On this page"));
  each(".content-icon-container", (part) => { part.role = "navigation"; part.ariaLabel = "This page"; });
  each("article:not(:has(h1)) > :first-child", (part) => part.insertAdjacentHTML("beforebegin", "<h1>Search</h1>"));
  const reachable = () => each("article pre", (code) => {
    if (code.scrollWidth > code.clientWidth) code.tabIndex = 0;
    else code.removeAttribute("tabindex");
  });
  reachable();
  addEventListener("resize", reachable);
  document.addEventListener("toggle", reachable, true);
});

// Who points at a link to a definition, or comes to it by the keyboard, sees what it is. The texts are in _static/tips/.
const root = new URL(document.documentElement.dataset.content_root || "./", location.href);
const known = {}; // the texts, by page; while they are loaded, who waits for them
let tip, link, timer;

function tips(page, texts) { // what the files there call
  known[page].texts = texts;
  known[page].wanted();
}

function place(anchor) { // the page that a link leads to, and the name there
  const url = new URL(anchor.href);
  if (!url.href.startsWith(root.href) || !url.hash) return [];
  return [url.pathname.slice(root.pathname.length).replace(/\.html$/, ""), decodeURIComponent(url.hash.slice(1))];
}

function wish(anchor) {
  const [page, name] = place(anchor);
  if (!page || !document.querySelector("article")?.contains(anchor)) return;
  clearTimeout(timer);
  timer = setTimeout(() => {
    const show = () => known[page].texts[name] && open(anchor, known[page].texts[name]);
    if (known[page]?.texts) return show();
    known[page] = {wanted: show};
    const script = document.createElement("script");
    script.src = new URL(`_static/tips/${page}.js`, root);
    script.onerror = () => { known[page] = {texts: {}}; }; // a page that defines nothing
    document.head.append(script);
  }, 300);
}

function open(anchor, html) {
  close();
  if (!anchor.matches(":hover, :focus")) return;
  link = anchor;
  tip = document.createElement("div");
  tip.id = "tip";
  tip.setAttribute("role", "tooltip");
  tip.innerHTML = html;
  document.querySelector("article").append(tip);
  anchor.setAttribute("aria-describedby", "tip");
  const at = anchor.getBoundingClientRect(), below = at.bottom + tip.offsetHeight < innerHeight || at.top < innerHeight / 2;
  tip.style.top = `${scrollY + (below ? at.bottom : at.top - tip.offsetHeight)}px`;
  tip.style.left = `${scrollX + Math.max(8, Math.min(at.left, innerWidth - tip.offsetWidth - 24))}px`;
}

function close() {
  clearTimeout(timer);
  tip?.remove();
  link?.removeAttribute("aria-describedby");
  tip = link = undefined;
}

function leave(event) { // from the link into its text one may go on
  const to = event.relatedTarget;
  if (to instanceof Node && (tip?.contains(to) || link?.contains(to))) return clearTimeout(timer);
  clearTimeout(timer);
  timer = setTimeout(close, 200);
}

for (const [begin, end] of [["mouseover", "mouseout"], ["focusin", "focusout"]]) {
  document.addEventListener(begin, (event) => {
    const anchor = event.target.closest?.("a[href*='#']");
    if (tip?.contains(event.target) || (anchor && anchor === link)) clearTimeout(timer);
    else if (anchor) wish(anchor);
  });
  document.addEventListener(end, (event) => {
    if (event.target.closest?.("a[href*='#'], #tip")) leave(event);
  });
}
document.addEventListener("keydown", (event) => { if (event.key === "Escape") close(); });
