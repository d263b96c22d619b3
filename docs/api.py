"Sphinx extension: what autodoc says of a definition, completed by the comments behind its parameters."

from __future__ import annotations

import inspect
import re
from dataclasses import is_dataclass
from importlib import import_module
from pydoc import locate
from typing import Any, cast

from fastcore.docments import docments
from sphinx.application import Sphinx
from sphinx_codeautolink.extension.resolve import populate_type_checking


def document(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    "To a docstring add what the comments behind the parameters say, and for a part of a class the place for its uses."
    lines[:] = [line.replace("\\", "\\\\") for line in lines]  # a backslash in a docstring is one
    if lines and lines[0].startswith("Alias for field number"):  # which is all that Python says of a named tuple's
        lines[:] = [comment(name)]
    lines += ["", *parameters(what, obj), ""]
    if what not in ("function", "class", "exception"):
        lines += [f".. used-by:: {name}", ""]


def parameters(what: str, obj: Any) -> list[str]:
    "The comments behind the parameters, and behind what is returned, in the form that Sphinx sets."
    target = vars(obj).get("__init__") if what == "class" else getattr(obj, "__wrapped__", obj)
    if is_dataclass(obj):
        target = obj  # whose parameters are its fields
    elif not inspect.isfunction(target) or target.__code__.co_filename.startswith("<"):
        return []  # made by Python: no comments there
    said = {name: about["docment"] for name, about in docments(target, full=True).items() if about["docment"]}
    fields = {name: "returns" if name == "return" else f"param {name}" for name in said}
    return [f":{fields[name]}: " + " ".join(text.split()) for name, text in said.items()]


def comment(name: str) -> str:
    "The comment behind a field of a class."
    owner, _, field = name.rpartition(".")
    found = re.search(rf"^ +{field}: [^#\n]*# *(.*)", inspect.getsource(cast(type, locate(owner))), re.M)
    return found[1] if found else ""


def leave_out_inherited(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, signature: str | None, returns: str | None
) -> tuple[str, None] | None:
    "A class that is made as its base is has no signature of its own."
    return ("", None) if signature and what == "class" and "__init__" not in vars(obj) else None


def begin(app: Sphinx) -> None:
    "Give the modules the types that only type checkers import, so that autodoc knows them."
    for page in app.pages.values():
        if page.module:
            populate_type_checking(import_module(page.module))


def setup(app: Sphinx) -> dict[str, Any]:
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("builder-inited", begin, priority=3)
    app.connect("autodoc-process-signature", leave_out_inherited)
    app.connect("autodoc-process-docstring", document)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
