// Notebooks run in the page only where a web server serves it.
document.addEventListener("DOMContentLoaded", () => {
  if (location.protocol === "file:") document.querySelectorAll(".run").forEach((button) => button.remove());
});
