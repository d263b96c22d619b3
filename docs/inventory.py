"""Cut Python's inventory of names down to what notebooks may mean, so that the site is built without network.

    python docs/inventory.py /usr/share/doc/python3/html/objects.inv

writes docs/python.txt. What it reads is in Debian's python3-doc, and at https://docs.python.org/3/objects.inv. It keeps the
built-in names and those of the modules that some file of the project imports, or that stand in MODULES below. It is to be
run again when a name is missing. docs/dnspython.txt is by hand, from the pages at https://dnspython.readthedocs.io.
"""

from __future__ import annotations

import builtins
import sys
from pathlib import Path

from sphobjinv import Inventory, writebytes
from stage import ROOT, Page, import_statements, notebooks

MODULES = "bisect dataclasses datetime enum heapq math queue secrets selectors sqlite3 statistics string textwrap types"


def imported() -> set[str]:
    "The modules that the notebooks and the project's own modules import, and the packages that they are in."
    sources = [source for path in notebooks() for source in Page(path).code]
    sources += [
        path.read_text(encoding="utf-8") for folder in ("tests", "bench") for path in ROOT.glob(f"{folder}/*.py")
    ]
    statements = [node for source in sources for node in import_statements(source)]
    names = {getattr(node, "module", None) or each.name for node in statements for each in node.names}
    return names | {name.partition(".")[0] for name in names} | set(MODULES.split())


def main() -> None:
    kept = imported() | set(vars(builtins))
    inventory = Inventory(sys.argv[1])
    inventory.objects[:] = [
        each
        for each in inventory.objects
        if each.domain == "py" and any(each.name == name or each.name.startswith(f"{name}.") for name in kept)
    ]
    writebytes(Path(__file__).with_name("python.txt"), inventory.data_file())


if __name__ == "__main__":
    main()
