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
  each("pre", (code) => { code.translate = false; });
  each(".headerlink", (sign) => { sign.title = "Link to this place"; });
  const reachable = () => each("article pre", (code) => {
    if (code.scrollWidth > code.clientWidth) code.tabIndex = 0;
    else code.removeAttribute("tabindex");
  });
  reachable();
  addEventListener("resize", reachable);
  document.addEventListener("toggle", reachable, true);
});

// Python's names lead to a page of ours, which has the long addresses once; who runs scripts goes there at once.
const addresses = new Map(Object.entries(python).flatMap(([page, names]) => names.map((name) => [`#${name}`, `https://docs.python.org/3/${page}#${name}`])));
for (const anchor of document.querySelectorAll("a[href*='py.html#']")) anchor.href = addresses.get(anchor.hash) || anchor.href;

// The signs on Furo's button for light and dark, which does nothing without scripts.
const moon = "M12 3a7.5 7.5 0 0 0 8.3 12.4A9 9 0 1 1 12 3z", half = "M12 4a8 8 0 0 1 0 16 8 8 0 0 1 0-16v16";
const sun = "M12 7a5 5 0 0 1 0 10 5 5 0 0 1 0-10m0-6v2m0 18v2M1 12h2m18 0h2M4 4l1.5 1.5m13 13L20 20M4 20l1.5-1.5m13-13L20 4";
for (const button of document.querySelectorAll(".theme-toggle")) {
  for (const [kind, said, path] of [["light", "Light mode", sun], ["dark", "Dark mode", moon], ["auto-light", "Auto light/dark, in light mode", `${half}m3-14v12m3-9v6`],
    ["auto-dark", "Auto light/dark, in dark mode", `${half}M9 6v12M6 9v6`]]) {
    button.insertAdjacentHTML("beforeend", `<svg class="theme-icon-when-${kind}" viewBox="0 0 24 24"><title>${said}</title><path d="${path}"/></svg>`);
  }
}

// What only scripts read comes deflated.
async function inflate(text) {
  const bytes = Uint8Array.from(atob(text), (each) => each.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).json();
}

// Who points at a link to a definition, or comes to it by the keyboard, sees what it is. The texts are in _static/tips/.
const root = new URL(document.documentElement.dataset.content_root || "./", location.href);
const known = {}; // the texts, by page; while they are loaded, who waits for them
let tip, link, timer;

async function tips(page, texts) { // what the files there call
  known[page].texts = await inflate(texts);
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
