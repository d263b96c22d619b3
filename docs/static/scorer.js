"use strict";

// What counts in a search: the title of a page, then a setting or a definition of that name, then headings, then words.
var Scorer = { // by that word, for what Sphinx loads declares it, too
  score: ([docname, title, anchor, description, score, filename, kind]) =>
    score + (kind === "title" && !anchor ? 40 : 0) - ((anchor || "").startsWith("#module-") ? 45 : 0) + (docname.startsWith("plugins/") ? 2 : 0)
    + (docname.startsWith("guides/") ? 1 : 0),
  objNameMatch: 40,
  objPartialMatch: 6,
  objPrio: {0: 15, 1: 5, 2: -5},
  objPrioDefault: 0,
  title: 25,
  partialTitle: 12,
  term: 5,
  partialTerm: 2,
};
