"The names of what the package stands on, extras included, without versions: for `make newest`."

from __future__ import annotations

import re
from configparser import ConfigParser
from pathlib import Path

BUILD = ("dev", "docs", "lab")  # extras of those who work on it

if __name__ == "__main__":
    config = ConfigParser(delimiters=["="], interpolation=None)
    config.read(Path(__file__).resolve().parent.parent / "settings.ini", encoding="utf-8")
    parts = {key: value for key, value in config["DEFAULT"].items() if key.endswith("requirements")}
    named = " ".join(value for key, value in parts.items() if key.partition("_")[0] not in BUILD).split()
    print(*dict.fromkeys(re.split(r"[<>=!~]", each)[0] for each in named))
