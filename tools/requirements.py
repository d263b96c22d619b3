"The names of what the package stands on, extras included, without versions: for `make newest`."

from __future__ import annotations

import re
from configparser import ConfigParser
from pathlib import Path

KEYS = ("requirements", "rater_requirements", "service_requirements", "sql_requirements")

if __name__ == "__main__":
    config = ConfigParser(delimiters=["="], interpolation=None)
    config.read(Path(__file__).resolve().parent.parent / "settings.ini", encoding="utf-8")
    named = " ".join(config["DEFAULT"][key] for key in KEYS).split()
    print(*dict.fromkeys(re.split(r"[<>=!~]", each)[0] for each in named))
