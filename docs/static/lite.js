"use strict";

// In the page of a notebook that runs in the browser: a link back to the page that tells about it, and, as soon as Python is there,
// one quiet run of all its code, so that any cell can be changed and run. What is stored stays in sight meanwhile.
addEventListener("DOMContentLoaded", async () => {
  const path = new URLSearchParams(location.search).get("path");
  if (!path) return;
  const back = document.createElement("a");
  back.id = "back";
  back.href = new URL(`../../${path.replace(/\.ipynb$/, ".html")}`, location.href);
  back.textContent = "← Back to the page";
  back.style = "position:fixed;top:4px;right:12px;z-index:100;padding:2px 10px;font:14px sans-serif;color:#0a58ca;background:#fff;border:1px solid #0a58ca;border-radius:4px";
  document.body.append(back);

  const until = async (wanted) => {
    for (;;) {
      const found = wanted();
      if (found) return found;
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
  };
  const panel = await until(() => {
    const widget = window.jupyterapp?.shell.currentWidget;
    return widget?.context?.isReady && widget.content?.widgets ? widget : null;
  });
  const kernel = await until(() => panel.sessionContext.session?.kernel);
  const code = panel.content.widgets.filter((cell) => cell.model.type === "code").map((cell) => cell.model.sharedModel.getSource());
  for (const source of code) await kernel.requestExecute({code: source, store_history: false}).done;
  document.body.dataset.prepared = code.length;
});
