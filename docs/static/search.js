"use strict";

// Below each result, what its page is about.
document.addEventListener("DOMContentLoaded", () => {
  const root = new URL(document.documentElement.dataset.content_root || "./", location.href);
  const results = document.getElementById("search-results");
  const tell = () => results.querySelectorAll("li:not([data-told])").forEach((item) => {
    const link = item.querySelector("a");
    if (!link) return;
    item.dataset.told = "yes";
    const page = new URL(link.href).pathname.slice(root.pathname.length).replace(/\.html$/, "");
    const text = document.createElement("p");
    text.className = "context";
    text.textContent = descriptions[page] || "";
    item.append(text);
  });
  new MutationObserver(tell).observe(results, {childList: true, subtree: true});
  tell();
});
